//! Reading a data directory without owning it: what every reading command needs, also while another process runs it.
//!
//! Writes nothing but what a run leaves for the next: a note about its agents file, and where it stopped looking.

use super::failure::Failure;
use qm2_core::config::Config;
use qm2_core::event::{Event, Record};
use qm2_core::ledger::Chain;
use qm2_core::receipt::{CallError, Head, LedgerFault, LedgerFaultKind};
use qm2_host::agents_file::AgentsFile;
use qm2_host::engine::{Answer, Call, Engine, Instance};
use qm2_host::history::History;
use qm2_host::reading;
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::Store;
use qm2_host::{Domain, HostError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines read, and replayed, at once.
pub const CHUNK: usize = 512;

/// Before the id of a coordination: the agents file that it was last run with.
const AGENTS: &str = "agents:";
/// Where an [`Overview`] is remembered.
const OVERVIEW: &str = "overview";
/// Fewer lines are sooner looked through again than an overview of them is kept.
const LOOKED_THROUGH_MIN: usize = 1_000;

/// The store, for reading.
pub fn open(directory: &Path) -> Result<SqliteStore, Failure> {
    if directory.exists() && !directory.is_dir() {
        let message = format!(
            "{} is not a directory; --data names the directory that holds a ledger",
            directory.display()
        );
        return Err(Failure::host("data", message));
    }
    Ok(SqliteStore::open_read_only(directory)?)
}

/// Whether there is something to read at all.
pub fn exists(directory: &Path) -> bool {
    directory.exists()
        && SqliteStore::open_read_only(directory)
            .is_ok_and(|store| store.head().is_ok_and(|h| h.seq > 0))
}

/// Gives all lines to `take`, in order, some at a time. Of a ledger in which lines are missing or damaged, those that are
/// there.
pub fn each_chunk(
    store: &dyn Store,
    take: impl FnMut(&[String]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    each_chunk_after(store, 0, take)
}

fn each_chunk_after(
    store: &dyn Store,
    mut after: u64,
    mut take: impl FnMut(&[String]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut before = Vec::new();
    loop {
        let lines = store.lines(after, CHUNK)?;
        if lines == before && !lines.is_empty() {
            // They are stored under numbers that are not theirs, and there is no way to go on behind them.
            return Err(broken(&LedgerFault {
                seq: after + 1,
                kind: LedgerFaultKind::BrokenChain,
                message: "is missing, but later records are there".into(),
            }));
        }
        take(&lines)?;
        if lines.len() < CHUNK {
            return Ok(());
        }
        after = last_seq(store, &lines)?.unwrap_or(after + lines.len() as u64);
        before = lines;
    }
}

/// The number under which the last of these lines is stored, if that is its own.
fn last_seq(store: &dyn Store, lines: &[String]) -> Result<Option<u64>, Failure> {
    let Some(last) = lines.last() else {
        return Ok(None);
    };
    let record: Value = serde_json::from_str(last).unwrap_or_default();
    let Some(seq) = record["seq"].as_u64() else {
        return Ok(None);
    };
    Ok((store.line(seq)?.as_ref() == Some(last)).then_some(seq))
}

/// The state of the ledger as it stands: an instance after replay, and every coordination folded.
pub struct Replayed {
    /// Answers reading calls.
    pub instance: Instance,
    /// By id.
    pub histories: BTreeMap<String, History>,
}

/// Replays the ledger into a new instance.
pub fn replay(store: &dyn Store) -> Result<Replayed, Failure> {
    let mut instance = Engine::new()?.instance()?;
    let mut histories: BTreeMap<String, History> = BTreeMap::new();
    let mut chain = Chain::default();
    loop {
        // By number, not by count: the domain may grow while this reads.
        let lines = store.lines(chain.head.seq, CHUNK)?;
        if lines.is_empty() {
            return Ok(Replayed {
                instance,
                histories,
            });
        }
        for line in &lines {
            chain.push(line).map_err(|fault| broken(&fault))?;
            let record = Record::parse(line).map_err(|error| {
                let message = error.to_string();
                broken(&LedgerFault {
                    seq: chain.head.seq,
                    kind: LedgerFaultKind::Unsupported,
                    message,
                })
            })?;
            let Some(id) = record.coordination_id.as_deref() else {
                continue;
            };
            match histories.get_mut(id) {
                Some(history) => history.apply(&record),
                None => histories
                    .extend(History::begin(&record).map(|history| (id.to_owned(), history))),
            }
        }
        call(
            &mut instance,
            &Call::Replay {
                lines,
                checked: true,
            },
        )?;
    }
}

/// As [`replay`], with the history of one coordination. What a snapshot covers is not replayed.
pub fn replay_one(store: &dyn Store, id: &str) -> Result<Replayed, Failure> {
    let mut instance = reading::instance(store)?;
    let Answer::Head(head) = call(&mut instance, &Call::Head)? else {
        return Err(wrong_answer("head"));
    };
    // The domain may have written more since.
    let records = reading::records(store, id, head.seq)?;
    let mut histories = BTreeMap::new();
    if let Some(mut history) = records.first().and_then(History::begin) {
        records[1..].iter().for_each(|record| history.apply(record));
        histories.insert(id.to_owned(), history);
    }
    Ok(Replayed {
        instance,
        histories,
    })
}

/// A component that does not answer what it was asked.
pub fn wrong_answer(question: &str) -> Failure {
    Failure::host(
        "component-fault",
        format!("the component answered another question than {question}"),
    )
}

/// A reading call to a scratch instance.
pub fn call(instance: &mut Instance, call: &Call) -> Result<Answer, Failure> {
    match instance.call(call) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(CallError::ReadOnly(fault))) => Err(broken(&fault)),
        Ok(Err(error)) => Err(HostError::Call(error).into()),
        Err(fault) => Err(Failure::host(
            "component-fault",
            format!("the component failed in {}: {fault}", call.name()),
        )),
    }
}

/// A ledger that does not verify.
pub fn broken(fault: &LedgerFault) -> Failure {
    HostError::LedgerBroken {
        seq: fault.seq,
        reason: fault.message.clone(),
    }
    .into()
}

/// No coordination of that id.
pub fn unknown(directory: &Path, id: &str) -> Failure {
    let message = format!(
        "{} has no coordination {id}; `qm2 status` lists those it has",
        directory.display()
    );
    Failure::usage("unknown-coordination", message)
}

/// What a run must know of a data directory before it opens it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Overview {
    /// The record up to which the ledger was looked through.
    head: Head,
    /// The configuration in force.
    pub config: Option<Config>,
    /// Ids of coordinations that have not ended.
    pub unfinished: BTreeSet<String>,
    /// How many lines that took.
    #[serde(skip)]
    looked_through: usize,
}

/// Looks the ledger through without replaying it, from where that was done last: the record types that matter are told by the
/// first members of a line.
pub fn overview(store: &dyn Store) -> Result<Overview, Failure> {
    // What comes meanwhile is looked through again the next time, to the same end.
    let head = store.head()?;
    let mut overview = remembered_overview(store)?.unwrap_or_else(|| Overview {
        head: Head::default(),
        config: None,
        unfinished: BTreeSet::new(),
        looked_through: 0,
    });
    each_chunk_after(store, overview.head.seq, |lines| {
        overview.looked_through += lines.len();
        for line in lines {
            match (member(line, "type"), member(line, "coordinationId")) {
                (Some("coordination.created"), Some(id)) => {
                    overview.unfinished.insert(id.to_owned());
                }
                (Some("coordination.terminal"), Some(id)) => {
                    overview.unfinished.remove(id);
                }
                (Some("ledger.genesis" | "domain.configured"), _) => {
                    // A record that is not readable is found when the domain opens, and named there.
                    match Record::parse(line).map(|record| record.event) {
                        Ok(Event::Genesis(genesis)) => overview.config = Some(genesis.config),
                        Ok(Event::Configured(configured)) => {
                            overview.config = Some(configured.config)
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    overview.head = head;
    Ok(overview)
}

/// The overview that was remembered last, if the record up to which it goes is in this ledger.
fn remembered_overview(store: &dyn Store) -> Result<Option<Overview>, Failure> {
    let text = store.meta(OVERVIEW)?.unwrap_or_default();
    let Ok(overview) = serde_json::from_str::<Overview>(&text) else {
        return Ok(None);
    };
    let line = store.line(overview.head.seq)?.unwrap_or_default();
    let end = format!("\"hash\":\"{}\"}}", overview.head.hash);
    Ok(line.ends_with(&end).then_some(overview))
}

/// Remembers an overview for which many lines were looked through, once the domain has opened: the ledger holds. Where it
/// cannot be kept, as on a full disk, the next run looks through them again.
pub async fn remember_overview(domain: &Domain, overview: &Overview) {
    if overview.looked_through < LOOKED_THROUGH_MIN {
        return;
    }
    // Holds no map with keys that are not text, so this cannot fail.
    let text = serde_json::to_string(overview).unwrap_or_default();
    let remember = move |store: &mut dyn Store| store.set_meta(OVERVIEW, &text);
    if let Err(e) = domain.with_store(remember).await {
        tracing::debug!("an overview was not kept: {e}");
    }
}

/// A text without escapes at the beginning of a line, which is where the members that every record has stand.
pub fn member<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
    rest.split_once('"').map(|(text, _)| text)
}

/// The agents file that a coordination was last run with.
pub fn remembered_agents(store: &dyn Store, id: &str) -> Result<Option<PathBuf>, Failure> {
    Ok(store.meta(&format!("{AGENTS}{id}"))?.map(PathBuf::from))
}

/// Remembers it, so that another run of the directory, or a cancel, takes the same.
pub async fn remember_agents(domain: &Domain, id: &str, path: &Path) -> Result<(), Failure> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(path) = path.to_str().map(ToOwned::to_owned) else {
        let message = format!(
            "the path {} is not UTF-8 and cannot be kept; move the agents file",
            path.display()
        );
        return Err(Failure::usage("invalid-agents", message));
    };
    let key = format!("{AGENTS}{id}");
    let remember = move |store: &mut dyn Store| match store.meta(&key)? {
        Some(known) if known == path => Ok(()),
        _ => store.set_meta(&key, &path),
    };
    Ok(domain.with_store(remember).await?)
}

/// The agents files of other unfinished coordinations, and where they are; they go on as soon as the domain opens.
pub fn other_agents(
    store: &dyn Store,
    unfinished: &BTreeSet<String>,
    id: &str,
) -> Result<Vec<(String, AgentsFile, PathBuf)>, Failure> {
    let mut files = Vec::new();
    for other in unfinished.iter().filter(|other| *other != id) {
        // One that no run left a note about was submitted by another host; its steps have no agents here.
        let Some(path) = remembered_agents(store, other)? else {
            continue;
        };
        let file = AgentsFile::read(&path).map_err(|error| {
            let message = format!(
                "coordination {other} of this data directory has not ended and would go on, but its agents file is not \
                 usable ({error}); restore the file, cancel it with `qm2 cancel {other}`, or use another --data"
            );
            Failure::usage("invalid-agents", message)
        })?;
        files.push((other.clone(), file, path));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm2_host::store::Transaction;

    fn line(seq: u64, kind: &str, id: &str) -> String {
        format!(
            r#"{{"v":1,"seq":{seq},"atMs":0,"type":"{kind}","coordinationId":"{id}","prev":"","hash":"h{seq}"}}"#
        )
    }

    #[test]
    fn overview_goes_on_from_where_one_of_this_ledger_was_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let mut seq = 0;
        let mut write = |store: &mut SqliteStore, kinds: &[(&str, &str)]| {
            let lines = kinds.iter().map(|(kind, id)| {
                seq += 1;
                line(seq, kind, id)
            });
            let lines = lines.collect();
            store
                .commit(&Transaction {
                    lines,
                    ..Transaction::default()
                })
                .unwrap();
        };
        let look = |store: &SqliteStore| {
            let overview = overview(store).map_err(|e| e.message).unwrap();
            let unfinished: Vec<String> = overview.unfinished.iter().cloned().collect();
            (overview, unfinished)
        };
        let (created, ended) = ("coordination.created", "coordination.terminal");
        write(
            &mut store,
            &[(created, "a"), (created, "b"), (ended, "a"), (created, "c")],
        );
        let (first, unfinished) = look(&store);
        assert_eq!(unfinished, ["b", "c"]);
        assert_eq!((first.head.seq, first.looked_through), (4, 4));
        let text = serde_json::to_string(&first).unwrap();
        store.set_meta(OVERVIEW, &text).unwrap();
        write(&mut store, &[(ended, "b"), (created, "d")]);
        let (second, unfinished) = look(&store);
        assert_eq!(unfinished, ["c", "d"]);
        assert_eq!((second.head.seq, second.looked_through), (6, 2));
        // Of another ledger, of a record that is not there, and none at all.
        for (from, to) in [("h4", "h9"), ("\"seq\":4", "\"seq\":9"), ("{", "[")] {
            store
                .set_meta(OVERVIEW, &text.replacen(from, to, 1))
                .unwrap();
            let (whole, unfinished) = look(&store);
            assert_eq!((whole.looked_through, unfinished.len()), (6, 2), "{to}");
        }
    }
}
