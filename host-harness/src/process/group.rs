//! A process and everything that it started, to be ended together.
//!
//! Found by its process group, and, where a child has left that, by the variables that the host had set. Starts nothing.

use crate::error::Result;
use crate::survivor::{self, Of};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

/// How long what is ended may take to go before it is killed.
const TERM_GRACE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Group {
    /// Absolute path of the data directory.
    pub(crate) data: PathBuf,
    /// Value of [`survivor::KEY_VARIABLE`] in all of it.
    pub(crate) key: String,
    /// Its leader, which is also the id of the group.
    pub(crate) pid: u32,
    pub(crate) child: Child,
}

impl Group {
    /// Ends it: asks, waits two seconds, then kills, until nothing of it is left.
    ///
    /// # Errors
    /// Something of it does not go.
    pub(crate) async fn end(&mut self) -> Result<()> {
        let until = Instant::now() + TERM_GRACE;
        // Before the first signal: once its parent is gone, a child that left the group and cleaned its environment can
        // no longer be told from others.
        let found = self.find().await;
        let known: Vec<(u32, u64)> = found
            .iter()
            .filter_map(|pid| Some((*pid, survivor::start_time(*pid)?)))
            .collect();
        let lives = |(pid, start): &&(u32, u64)| survivor::start_time(*pid) == Some(*start);
        survivor::signal_group(self.pid, Signal::TERM);
        for pid in found {
            survivor::signal(pid, Signal::TERM);
        }
        loop {
            let gone = matches!(self.child.try_wait(), Ok(Some(_)));
            if gone && !known.iter().any(|one| lives(&one)) && self.find().await.is_empty() {
                break;
            }
            if Instant::now() >= until {
                survivor::signal_group(self.pid, Signal::KILL);
                for (pid, _) in known.iter().filter(lives) {
                    survivor::signal(*pid, Signal::KILL);
                }
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        let (data, key) = (self.data.clone(), self.key.clone());
        let ended = tokio::task::spawn_blocking(move || survivor::end(&data, Of::Attempt(&key)));
        let _ = timeout(TERM_GRACE, self.child.wait()).await;
        ended.await.unwrap_or(Ok(()))
    }

    /// What of it runs, as far as the system tells; the last look, in [`survivor::end`], says so if it does not.
    async fn find(&self) -> Vec<u32> {
        let (data, key) = (self.data.clone(), self.key.clone());
        let find = move || survivor::find(&data, Of::Attempt(&key)).unwrap_or_default();
        tokio::task::spawn_blocking(find).await.unwrap_or_default()
    }
}
