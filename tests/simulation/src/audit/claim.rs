//! Who holds what: the model's own table of grants.
//!
//! Says whether two grants may stand side by side and what the guard must answer; how contests are decided is not audited here.

use super::plan::{list, number, text};
use serde_json::Value;
use std::collections::BTreeMap;

/// A resource that an attempt holds.
#[derive(Clone, Debug)]
pub struct Grant {
    pub place: (String, String),
    pub resource: String,
    pub is_exclusive: bool,
    pub session: String,
    pub lease_ms: u64,
    pub expires_ms: u64,
    pub base_version: Option<String>,
    pub regions: Vec<(u64, u64)>,
    /// When its leases stopped running, while a person is asked.
    pub rests_since_ms: Option<u64>,
}

/// Regions of a claim or a request.
pub fn regions(value: &Value) -> Vec<(u64, u64)> {
    let pair = |region: &Value| (number(region, "start"), number(region, "end"));
    list(value, "regions").iter().map(pair).collect()
}

/// Whether one of two resources is the other or lies in it.
pub fn overlap(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() {
        (one, other)
    } else {
        (other, one)
    };
    let Some(rest) = long.strip_prefix(short) else {
        // `kind:` alone is the whole tree of relative paths.
        return false;
    };
    rest.is_empty() || rest.starts_with('/') || short.ends_with(':') || short.ends_with('/')
}

fn are_apart(one: &[(u64, u64)], other: &[(u64, u64)]) -> bool {
    let apart = |a: &(u64, u64), b: &(u64, u64)| a.1 <= b.0 || b.1 <= a.0;
    !one.is_empty() && !other.is_empty() && one.iter().all(|a| other.iter().all(|b| apart(a, b)))
}

/// All grants that live.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    live: BTreeMap<u64, Grant>,
    last: u64,
}

impl Grants {
    /// A claim.granted record.
    pub fn grant(&mut self, seq: u64, place: (String, String), data: &Value) -> Result<(), String> {
        let grant = Grant {
            place,
            resource: text(data, "resource").to_owned(),
            is_exclusive: text(data, "mode") == "exclusive",
            session: text(data, "session").to_owned(),
            lease_ms: number(data, "leaseMs"),
            expires_ms: number(data, "expiresMs"),
            base_version: data["baseVersion"].as_str().map(str::to_owned),
            regions: regions(data),
            rests_since_ms: None,
        };
        if seq <= self.last {
            return Err(format!("token {seq} does not grow beyond {}", self.last));
        }
        self.last = seq;
        for (token, other) in &self.live {
            let meets = other.place != grant.place
                && overlap(&other.resource, &grant.resource)
                && (other.is_exclusive || grant.is_exclusive);
            // Units are those of one resource.
            let merged = other.resource == grant.resource
                && other.base_version.is_some()
                && other.base_version == grant.base_version
                && are_apart(&other.regions, &grant.regions);
            if meets && !merged {
                return Err(format!(
                    "{} is granted to {:?} under {seq} while {:?} holds {} under {token}",
                    grant.resource, grant.place, other.place, other.resource
                ));
            }
        }
        self.live.insert(seq, grant);
        Ok(())
    }

    pub fn get(&self, token: u64) -> Option<&Grant> {
        self.live.get(&token)
    }

    pub fn get_mut(&mut self, token: u64) -> Option<&mut Grant> {
        self.live.get_mut(&token)
    }

    pub fn remove(&mut self, token: u64) -> Result<Grant, String> {
        let gone = || format!("{token} ends and is not held");
        self.live.remove(&token).ok_or_else(gone)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&u64, &Grant)> {
        self.live.iter()
    }

    /// whether the guard must allow this.
    #[allow(clippy::too_many_arguments)]
    pub fn allows(
        &self,
        now_ms: u64,
        resource: &str,
        session: &str,
        token: u64,
        is_write: bool,
        regions: &[(u64, u64)],
        base_version: Option<&str>,
    ) -> bool {
        let Some(grant) = self.live.get(&token) else {
            return false;
        };
        let within = grant.resource == resource
            || resource.starts_with(&grant.resource) && overlap(&grant.resource, resource);
        let covered = grant.regions.is_empty()
            || !regions.is_empty()
                && regions.iter().all(|asked| {
                    grant
                        .regions
                        .iter()
                        .any(|held| held.0 <= asked.0 && asked.1 <= held.1)
                });
        let alive = grant.rests_since_ms.is_some() || now_ms < grant.expires_ms;
        alive
            && within
            && covered
            && grant.session == session
            && (!is_write || grant.is_exclusive)
            && base_version.is_none_or(|version| grant.base_version.as_deref() == Some(version))
    }
}
