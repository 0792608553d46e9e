//! The way for other processes of the same user to reach the one that owns a data directory: a local socket in it, JSON
//! lines, one call and one answer at a time.
//!
//! The owner's own calls, such as telling the time, are refused. Who may open the socket is who may open the directory.

use crate::call::{Answer, Call};
use crate::error::{HostError, Result};
use crate::paths;
use crate::submit::{Side, Submitter};
use qm2_core::receipt::CallError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
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
    pub(crate) fn start(directory: &Path, submitter: Submitter) -> Result<Self> {
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
                        let submitter = submitter.clone();
                        tokio::spawn(async move {
                            if let Err(e) = serve(stream, &submitter).await {
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
        let closed = |_| HostError::Closed;
        let mut line = serde_json::to_vec(call).map_err(|e| remote(e.to_string()))?;
        line.push(b'\n');
        self.stream
            .get_mut()
            .write_all(&line)
            .await
            .map_err(closed)?;
        let mut line = Vec::new();
        let mut stream = (&mut self.stream).take(LINE_BYTES_MAX);
        stream.read_until(b'\n', &mut line).await.map_err(closed)?;
        if line.last() != Some(&b'\n') {
            return Err(HostError::Closed);
        }
        match serde_json::from_slice(&line) {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Error(ErrorResponse {
                call: Some(error), ..
            })) => Err(HostError::Call(error)),
            Ok(Response::Error(ErrorResponse {
                message, retryable, ..
            })) => Err(HostError::Remote { message, retryable }),
            Err(e) => Err(remote(format!(
                "the owner of the data directory speaks another version: {e}"
            ))),
        }
    }
}

async fn serve(stream: UnixStream, submitter: &Submitter) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (&mut stream)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let response = match answer(&line, submitter).await {
            Ok(answer) => Response::Ok(answer),
            Err(e) => Response::Error(ErrorResponse {
                message: e.to_string(),
                retryable: e.retryable(),
                call: match e {
                    HostError::Call(error) => Some(error),
                    _ => None,
                },
            }),
        };
        let mut line = serde_json::to_vec(&response).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.get_mut().write_all(&line).await?;
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
