//! The way for other processes of the same user to reach the one that owns a data directory: a local socket in it, JSON
//! lines, one call and one answer at a time.
//!
//! A connection over which a command was allowed to run under a grant stays open while it runs: the owner says `stop` over
//! it, the other side says `ended`, and whoever goes away without a word is taken for dead. The owner's own calls, such as telling the time, are refused. Who may open the socket is who may open the directory.

use crate::error::{HostError, Result};
use crate::guard::{self, GuardRequest, Guarded, Guards};
use crate::paths;
use crate::submit::{Side, Submitter};
use qm2_core::call::{Answer, Call};
use qm2_core::receipt::{CallError, GuardVerdict};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// Longest request or answer: the largest plan, escaped, with room around it.
const LINE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Longest path that a socket address surely holds.
const ADDRESS_BYTES_MAX: usize = 100;

/// What comes back for a call.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Response {
    Ok(Answer),
    Error(ErrorResponse),
    /// Whether a command may run; if so, what its environment must have for its marker.
    Guard {
        verdict: GuardVerdict,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        marker: Option<String>,
    },
    /// The command must end, and why.
    Stop(String),
}

/// What is asked beside calls.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    /// May a command run under this grant?
    Guard(GuardRequest),
    /// Nothing of the command runs any more.
    Ended,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorResponse {
    message: String,
    retryable: bool,
    /// The component's own refusal, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<CallError>,
}

/// Listens until it is dropped.
pub(crate) struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Begins to listen. A socket that a dead owner left is replaced: the lock says that there is no other.
    pub(crate) fn start(
        directory: &Path,
        submitter: Submitter,
        guards: Arc<Guards>,
    ) -> Result<Self> {
        let path = directory.join(paths::SOCKET);
        let failed = |e| HostError::io("listen on", &path, e);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let (address, folder) = address(directory).map_err(failed)?;
        let listener = UnixListener::bind(address).map_err(failed)?;
        drop(folder);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let (submitter, guards) = (submitter.clone(), guards.clone());
                        tokio::spawn(async move {
                            if let Err(e) = serve(stream, &submitter, &guards).await {
                                tracing::debug!("a client went away: {e}");
                            }
                        });
                    }
                    Err(e) => {
                        tracing::warn!("a client could not connect: {e}");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Self { path, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the process that owns a data directory; nothing if there is none.
pub async fn connect(directory: &Path) -> Option<Client> {
    let (address, _folder) = address(directory).ok()?;
    let stream = UnixStream::connect(address).await.ok()?;
    Some(Client {
        stream: BufReader::new(stream),
    })
}

/// A connection to the owner of a data directory.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Makes a call there, at its present time.
    ///
    /// # Errors
    /// [`HostError::Call`] as the component said it, [`HostError::Remote`] for everything else that went wrong there, and
    /// [`HostError::Closed`] if the owner went away.
    pub async fn call(&mut self, call: &Call) -> Result<Answer> {
        match self.ask(call).await? {
            Response::Ok(answer) => Ok(answer),
            _ => Err(remote("the answer of another call".into())),
        }
    }

    /// Runs a command if the owner of the data directory allows it, and only while the grant lives and that owner does; see
    /// [`crate::Domain::guarded`]. `directory` is the data directory. The command is ended also when `interrupted` resolves,
    /// for the reason that it gives.
    ///
    /// # Errors
    /// As [`Client::call`]; [`HostError::Io`] if the command cannot be started.
    pub async fn guarded(
        mut self,
        directory: &Path,
        request: &GuardRequest,
        command: Command,
        interrupted: impl Future<Output = String>,
    ) -> Result<Guarded> {
        let request = Request::Guard(request.clone());
        let (verdict, marker) = match self.ask(&request).await? {
            Response::Guard { verdict, marker } => (verdict, marker),
            _ => return Err(remote("the answer of another call".into())),
        };
        let Some(marker) = marker else {
            return Ok(Guarded::Refused(verdict));
        };
        let directory = std::path::absolute(directory)
            .and_then(|directory| directory.canonicalize())
            .map_err(|e| HostError::io("find the data directory", directory, e))?;
        let stopped = async {
            tokio::select! {
                reason = self.stopped() => reason,
                reason = interrupted => reason,
            }
        };
        let ended = guard::run(command, &directory, &marker, stopped).await?;
        // If the owner is gone nobody waits for this.
        let _ = self.send(&Request::Ended).await;
        Ok(ended)
    }

    /// Resolves when the owner says why the command must end, or goes away.
    async fn stopped(&mut self) -> String {
        match self.receive().await {
            Ok(Response::Stop(reason)) => reason,
            _ => "the process that runs the data directory is gone".into(),
        }
    }

    async fn ask(&mut self, request: &impl Serialize) -> Result<Response> {
        self.send(request).await?;
        match self.receive().await? {
            Response::Error(ErrorResponse {
                call: Some(error), ..
            }) => Err(HostError::Call(error)),
            Response::Error(ErrorResponse {
                message, retryable, ..
            }) => Err(HostError::Remote { message, retryable }),
            response => Ok(response),
        }
    }

    async fn send(&mut self, request: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(request).map_err(|e| remote(e.to_string()))?;
        line.push(b'\n');
        let sent = self.stream.get_mut().write_all(&line).await;
        sent.map_err(|_| HostError::Closed)
    }

    async fn receive(&mut self) -> Result<Response> {
        let line = line(&mut self.stream)
            .await
            .map_err(|_| HostError::Closed)?;
        let line = line.ok_or(HostError::Closed)?;
        serde_json::from_slice(&line).map_err(|e| {
            remote(format!(
                "the owner of the data directory speaks another version: {e}"
            ))
        })
    }
}

/// The next line; nothing where the other side went away.
async fn line(stream: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    read_line(stream, &mut line).await?;
    Ok((line.last() == Some(&b'\n')).then_some(line))
}

/// Reads up to the end of a line or of the stream. Nothing is lost when it is dropped and called again.
async fn read_line(stream: &mut BufReader<UnixStream>, line: &mut Vec<u8>) -> io::Result<()> {
    let mut stream = stream.take(LINE_BYTES_MAX);
    stream.read_until(b'\n', line).await.map(drop)
}

async fn serve(stream: UnixStream, submitter: &Submitter, guards: &Arc<Guards>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(line) = line(&mut stream).await? {
        if let Ok(Request::Guard(request)) = serde_json::from_slice(&line) {
            serve_guard(&mut stream, &request, submitter, guards).await?;
            continue;
        }
        let response = answer(&line, submitter).await.map(Response::Ok);
        respond(&mut stream, &response.unwrap_or_else(Response::from)).await?;
    }
    Ok(())
}

async fn respond(stream: &mut BufReader<UnixStream>, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await
}

/// A command that runs in the process at the other side. Its ticket is kept until that process says that the command has
/// ended; where it goes away without that, the ticket ends the command.
async fn serve_guard(
    stream: &mut BufReader<UnixStream>,
    request: &GuardRequest,
    submitter: &Submitter,
    guards: &Arc<Guards>,
) -> io::Result<()> {
    let pid = stream
        .get_ref()
        .peer_cred()
        .ok()
        .and_then(|peer| peer.pid());
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    let (verdict, mut ticket) = match guard::admit(submitter, guards, request, pid).await {
        Ok((verdict, Some(ticket))) => (verdict, ticket),
        Ok((verdict, None)) => {
            let marker = None;
            return respond(stream, &Response::Guard { verdict, marker }).await;
        }
        Err(e) => return respond(stream, &e.into()).await,
    };
    let stopped = ticket.stopped();
    let marker = Some(ticket.marker());
    respond(stream, &Response::Guard { verdict, marker }).await?;
    // Outside, so that what was read stays when the other side is told to stop meanwhile.
    let mut said = Vec::new();
    let told = tokio::select! {
        read = read_line(stream, &mut said) => { read?; None }
        reason = stopped => Some(reason),
    };
    if let Some(reason) = told {
        respond(stream, &Response::Stop(reason)).await?;
        read_line(stream, &mut said).await?;
    }
    if let Ok(Request::Ended) = serde_json::from_slice(&said) {
        ticket.leave();
    }
    Ok(())
}

impl From<HostError> for Response {
    fn from(e: HostError) -> Self {
        Self::Error(ErrorResponse {
            message: e.to_string(),
            retryable: e.retryable(),
            call: match e {
                HostError::Call(error) => Some(error),
                _ => None,
            },
        })
    }
}

async fn answer(line: &[u8], submitter: &Submitter) -> Result<Answer> {
    let call: Call =
        serde_json::from_slice(line).map_err(|e| remote(format!("not a call: {e}")))?;
    if call.is_host_only() {
        return Err(HostError::HostOnly { call: call.name() });
    }
    submitter.call(call, Side::default()).await
}

fn remote(message: String) -> HostError {
    HostError::Remote {
        message,
        retryable: false,
    }
}

/// Addresses of sockets are short; a long path goes through an open folder, which must live until it is used.
fn address(directory: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = directory.join(paths::SOCKET);
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return Ok((path, None));
    }
    let folder = File::open(directory)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
    Ok((short.join(paths::SOCKET), Some(folder)))
}
