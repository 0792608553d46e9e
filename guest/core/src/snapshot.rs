//! Snapshots: the whole state in pieces, and back.
//!
//! A piece is canonical JSON with a version. Pieces follow each other: the domain, the live coordinations in the order of
//! their ids, then the closed ones. Does not verify the ledger that the state came from.

use crate::closed::{Closed, Incoming};
use crate::codec::{canonical, object, parse};
use crate::event::Name;
use crate::receipt::{CallError, Head, SnapshotChunk};
use crate::state::{Configured, Coordination, State};

const VERSION: u32 = 1;

/// One piece; every list may be empty.
struct Piece {
    v: u32,
    domain: Option<Domain>,
    live: Vec<Coordination>,
    closed: Incoming,
}

object!(read Piece {
    "v": req v,
    "domain": opt domain,
    "live": set live,
    "closed": set closed,
});

struct Domain {
    head: Head,
    now_ms: u64,
    configured: Option<Configured>,
    last_owner: Option<Name>,
}

/// A piece as it is written, without copies.
struct PieceView<'a> {
    v: u32,
    domain: Option<Domain>,
    live: Vec<&'a Coordination>,
    closed: Vec<(Name, Closed)>,
}

object!(write PieceView<'a> {
    "v": req v,
    "domain": opt domain,
    "live": set live,
    "closed": set closed,
});

object!(Domain {
    "head": req head,
    "nowMs": req now_ms,
    "configured": opt configured,
    "lastOwner": opt last_owner,
});

/// The piece after a cursor. Cursors are `live:ID` and `closed:ID`, the last one taken; `closed:` begins the closed ones.
pub(crate) fn snapshot(
    state: &State,
    cursor: Option<&str>,
    max_bytes: u64,
) -> Result<SnapshotChunk, CallError> {
    let mut piece = PieceView {
        v: VERSION,
        domain: None,
        live: Vec::new(),
        closed: Vec::new(),
    };
    let mut bytes = 0_u64;
    let live_after = match cursor {
        None => {
            piece.domain = Some(Domain {
                head: state.head.clone(),
                now_ms: state.now_ms,
                configured: state.configured.clone(),
                last_owner: state.last_owner.clone(),
            });
            Some("")
        }
        Some(cursor) => cursor.strip_prefix("live:"),
    };
    if let Some(from) = live_after {
        for (id, live) in state.live.after(named(from)) {
            bytes += canonical(live).len() as u64;
            piece.live.push(live);
            if bytes >= max_bytes {
                return Ok(SnapshotChunk {
                    chunk: canonical(&piece),
                    next: Some(format!("live:{id}")),
                });
            }
        }
        let next = (state.closed.len() > 0).then(|| "closed:".to_owned());
        return Ok(SnapshotChunk {
            chunk: canonical(&piece),
            next,
        });
    }
    let cursor = cursor.unwrap_or_default();
    let Some(from) = cursor.strip_prefix("closed:") else {
        return Err(CallError::bound(
            "cursor",
            format!("cursor '{cursor}' is none that a snapshot gave"),
        ));
    };
    let mut closed = state.closed.after(named(from));
    while let Some((id, entry)) = closed.next() {
        let pair = (id, entry);
        bytes += canonical(&pair).len() as u64;
        let next = format!("closed:{}", pair.0);
        piece.closed.push(pair);
        if bytes >= max_bytes && !closed.is_at_end() {
            return Ok(SnapshotChunk {
                chunk: canonical(&piece),
                next: Some(next),
            });
        }
    }
    Ok(SnapshotChunk {
        chunk: canonical(&piece),
        next: None,
    })
}

/// The id in a cursor; none where it stands before the first.
fn named(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// A chunk that cannot be taken in.
fn wrong(says: impl Into<String>) -> CallError {
    CallError::bound("chunk", says)
}

fn misplaced() -> CallError {
    wrong("a coordination is not in its place")
}

/// A snapshot that is being taken in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restore {
    state: State,
    begun: bool,
    /// Id of the last live coordination.
    last: Option<Name>,
}

impl Restore {
    /// Takes the next piece in.
    pub(crate) fn push(&mut self, chunk: &str) -> Result<(), CallError> {
        let piece: Piece = parse(chunk)
            .map_err(|error| wrong(format!("the chunk is no piece of a snapshot: {error}")))?;
        if piece.v != VERSION {
            return Err(wrong(format!("snapshot version {} is not known", piece.v)));
        }
        if piece.domain.is_some() == self.begun {
            return Err(wrong("the first chunk, and no other, holds the domain"));
        }
        if let Some(domain) = piece.domain {
            if let Some(configured) = &domain.configured {
                let config = &configured.config;
                self.state
                    .index
                    .slots
                    .set_widths(config.max_in_flight, config.session_in_flight);
                self.state.index.claims.set_owners(&config.owners);
            }
            self.state.head = domain.head;
            self.state.now_ms = domain.now_ms;
            self.state.configured = domain.configured;
            self.state.last_owner = domain.last_owner;
            self.begun = true;
        }
        for mut live in piece.live {
            live.check_indexes().map_err(wrong)?;
            live.compact();
            self.follow(&live.id)?;
            self.state.insert(live);
        }
        for (seq, id) in piece.closed.reports() {
            self.state.index.reports.insert(seq, id.clone());
        }
        match self.state.closed.append(piece.closed) {
            true => Ok(()),
            false => Err(misplaced()),
        }
    }

    /// Live ones come in the order in which a snapshot has them, each once, and before the closed ones; an empty id is none,
    /// and a cursor could not name it.
    fn follow(&mut self, id: &Name) -> Result<(), CallError> {
        let before = self.last.as_deref().unwrap_or_default();
        if before >= &**id || self.state.closed.len() > 0 {
            return Err(misplaced());
        }
        self.last = Some(id.clone());
        Ok(())
    }

    /// The state, once the last piece is in.
    pub(crate) fn finish(self) -> Result<State, CallError> {
        if !self.begun {
            return Err(wrong("no chunk held the domain"));
        }
        // Asked of the live ones, which are few beside the closed ones.
        let State { live, closed, .. } = &self.state;
        if live.iter().any(|(id, _)| closed.contains(id)) {
            return Err(misplaced());
        }
        Ok(self.state)
    }
}
