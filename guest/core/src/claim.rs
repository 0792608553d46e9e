//! Claims on shared resources: their form, and which of them overlap.
//!
//! Does not decide who gets what: [`crate::arbitration`] does; and does not know grants, which are the state's.

use crate::codec::Part::Text;
use crate::codec::{concat, object, words};
use crate::id::check_bytes;
use crate::limit;
use crate::take::take;
use serde::{Deserialize, Serialize};

/// How a resource is claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Beside other shared claims.
    Shared,
    /// Alone.
    #[default]
    Exclusive,
}

/// Part of a resource: from `start` up to, but without, `end`, in units of the host's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Region {
    /// The first unit.
    pub start: u64,
    /// The first unit after it; more than `start`.
    pub end: u64,
}

/// A step's wish for a resource, as its plan declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claim {
    /// `kind:path`, such as `file:src/lib.rs`; at most 512 bytes. Paths that contain each other overlap.
    pub resource: String,
    /// Alone or beside other readers.
    #[serde(default)]
    pub mode: Mode,
    /// How long it is held without progress or renewal; milliseconds from 1 to 400 days; `timeoutMs` of the step if absent.
    #[serde(default)]
    pub lease_ms: u64,
    /// What the work is based on, such as a commit; 1..256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<String>,
    /// Which parts are touched; empty for all of it; at most 64.
    #[serde(default)]
    pub regions: Vec<Region>,
}

/// A resource with the fencing token of its grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The resource in its normal form.
    pub resource: String,
    /// Number of the claim.granted record.
    pub token: u64,
}

words!(Mode { Shared = "shared", Exclusive = "exclusive", });
object!(taken Region { "start": req start, "end": req end, });
object!(Claim {
    "resource": req resource,
    "mode": req mode,
    "leaseMs": req lease_ms,
    "baseVersion": opt base_version,
    "regions": req regions,
});
object!(taken Token { "resource": req resource, "token": req token, });

/// An extra claim of a running step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRequest {
    /// The coordination.
    pub coordination_id: String,
    /// The step; dispatched or acknowledged.
    pub step_id: String,
    /// Its current attempt.
    pub attempt: u32,
    /// `kind:path`, at most 512 bytes.
    pub resource: String,
    /// How.
    #[serde(default)]
    pub mode: Mode,
    /// How long it is held without progress or renewal; milliseconds from 1 to 400 days.
    pub lease_ms: u64,
    /// What it is based on; 1..256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<String>,
    /// Which parts; empty for all of it, at most 64.
    #[serde(default)]
    pub regions: Vec<Region>,
}

take!(ClaimRequest {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "attempt": req attempt,
    "resource": req resource,
    "mode": def mode,
    "leaseMs": req lease_ms,
    "baseVersion": opt base_version,
    "regions": def regions,
});

/// What is about to be done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Any live grant that covers it is enough.
    Read,
    /// The grant must be exclusive.
    Write,
}

words!(Access { Read = "read", Write = "write", });

/// The normal form of a resource or, with `pattern`, of a pattern: empty and `.` segments dropped, a leading `/` kept.
///
/// # Errors
/// A sentence that names the offence and the bound.
pub fn normal_form(text: &str) -> Result<String, String> {
    check_bytes(text, 1, limit::RESOURCE_BYTES_MAX)?;
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(format!(
            "has the control character U+{:04X}",
            u32::from(control)
        ));
    }
    let Some((kind, path)) = text.split_once(':') else {
        return Err("has no kind; kind:path is expected, such as file:src/lib.rs".into());
    };
    let kind_is_fine = kind.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && kind
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !kind_is_fine {
        return Err(format!(
            "has the kind {kind}; a lower-case letter and then a-z, 0-9 and '-' are allowed"
        ));
    }
    let mut form = format!("{kind}:");
    if path.starts_with('/') {
        form.push('/');
    }
    let mut first = true;
    for segment in path.split('/') {
        match segment {
            "" | "." => continue,
            ".." => return Err("has '..'; a resource is named from its root".into()),
            _ => {}
        }
        if !first {
            form.push('/');
        }
        first = false;
        form.push_str(segment);
    }
    Ok(form)
}

/// Where the path of a resource in its normal form begins.
fn path_start(resource: &str) -> usize {
    resource.find(':').map_or(0, |at| at + 1)
}

/// What every resource within this one begins with.
pub(crate) fn inner_prefix(resource: &str) -> String {
    let whole = resource.len() == path_start(resource) || resource.ends_with('/');
    if whole {
        resource.to_owned()
    } else {
        concat(&[Text(resource), Text("/")])
    }
}

/// The resources that contain this one, the smallest first, without itself.
pub(crate) fn ancestors(resource: &str) -> impl Iterator<Item = &str> {
    let start = path_start(resource);
    let bytes = resource.as_bytes();
    let root = start + usize::from(bytes.get(start) == Some(&b'/'));
    let mut end = resource.len();
    std::iter::from_fn(move || {
        if end <= root {
            return None;
        }
        let slash = bytes[root..end].iter().rposition(|byte| *byte == b'/');
        end = root + slash.unwrap_or(0);
        // Both ends stand beside ASCII; `get` spares the component the panic of a cut within a character.
        resource.get(..end)
    })
}

/// Whether `outer` is `inner` or contains it. A relative and an absolute path never contain each other.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    outer == inner || ancestors(inner).any(|known| known == outer)
}

/// Same kind, and equal paths or one within the other.
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    contains(a, b) || contains(b, a)
}

/// Whether no unit is in both. Without regions a claim is for all of the resource.
#[must_use]
pub fn are_disjoint(a: &[Region], b: &[Region]) -> bool {
    let apart = |x: &Region, y: &Region| x.end <= y.start || y.end <= x.start;
    !a.is_empty() && !b.is_empty() && a.iter().all(|x| b.iter().all(|y| apart(x, y)))
}

/// Whether every unit asked for is in the regions granted. No regions mean all of the resource.
#[must_use]
pub fn covers(granted: &[Region], asked: &[Region]) -> bool {
    if granted.is_empty() {
        return true;
    }
    let within = |ask: &Region| {
        let mut from = ask.start;
        while from < ask.end {
            match granted
                .iter()
                .filter(|has| has.start <= from && from < has.end)
                .map(|has| has.end)
                .max()
            {
                Some(end) => from = end,
                None => return false,
            }
        }
        true
    };
    !asked.is_empty() && asked.iter().all(within)
}

/// Whether a pattern fits a resource in its normal form: `*` within a segment, `**` across segments.
#[must_use]
pub fn fits(pattern: &str, resource: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), resource.as_bytes());
    // Where to go on after a mismatch: the text that the last star of each sort may swallow one byte more of.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    let mut stars: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            let double = pattern.get(p + 1) == Some(&b'*');
            let place = if double { &mut stars } else { &mut star };
            p += if double { 2 } else { 1 };
            *place = Some((p, t));
            if double {
                star = None;
            }
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if p < pattern.len() && t < text.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
            continue;
        }
        if let Some((after, from)) =
            star.filter(|(_, from)| from < &text.len() && text[*from] != b'/')
        {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else if let Some((after, from)) = stars.filter(|(_, from)| *from < text.len()) {
            star = None;
            stars = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
}

/// The regions of a claim: each with an end after its start, at most 64.
///
/// # Errors
/// A sentence that names the offence and the bound.
pub(crate) fn check_regions(regions: &[Region]) -> Result<(), String> {
    if regions.len() > limit::REGIONS_MAX {
        return Err(format!(
            "has {} entries; {} are allowed",
            regions.len(),
            limit::REGIONS_MAX
        ));
    }
    match regions
        .iter()
        .find(|region| region.start >= region.end || region.end > limit::INTEGER_MAX)
    {
        None => Ok(()),
        Some(Region { start, end }) => Err(format!(
            "has {start}..{end}; an end after the start, at most {}, is expected",
            limit::INTEGER_MAX
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (given, form) in [
            ("file:src//./lib.rs/", "file:src/lib.rs"),
            ("file:/a/b", "file:/a/b"),
            ("file:/", "file:/"),
            ("file:.", "file:"),
            ("queue:jobs", "queue:jobs"),
            ("session:agent:lint:a", "session:agent:lint:a"),
        ] {
            assert_eq!(normal_form(given).as_deref(), Ok(form), "{given}");
            assert_eq!(normal_form(form).as_deref(), Ok(form), "{form} again");
        }
        for wrong in [
            "src/lib.rs",
            "File:a",
            "9a:b",
            ":a",
            "file:a/../b",
            "file:a\nb",
            "",
        ] {
            assert!(normal_form(wrong).is_err(), "{wrong:?}");
        }
        let long = format!("file:{}", "a".repeat(limit::RESOURCE_BYTES_MAX - 5));
        assert!(normal_form(&long).is_ok());
        assert!(
            normal_form(&format!("{long}a"))
                .unwrap_err()
                .contains("1..512")
        );
    }

    #[test]
    fn equal_paths_and_paths_within_each_other_overlap() {
        for (a, b, yes) in [
            ("file:a", "file:a", true),
            ("file:a", "file:a/b/c", true),
            ("file:a", "file:ab", false),
            ("file:a/b", "file:a/c", false),
            ("file:", "file:a/b", true),
            ("file:", "file:/a", false),
            ("file:/", "file:/a", true),
            ("file:a", "queue:a", false),
            ("file:A", "file:a", false),
        ] {
            assert_eq!((overlap(a, b), overlap(b, a)), (yes, yes), "{a} {b}");
            let inside = b.starts_with(&inner_prefix(a)) && b != a && contains(a, b);
            assert_eq!(inside, contains(a, b) && a != b, "{a} {b}");
        }
        let ancestors = |resource| ancestors(resource).collect::<Vec<_>>();
        assert_eq!(ancestors("file:/a/b"), ["file:/a", "file:/"]);
        assert_eq!(ancestors("file:a/b"), ["file:a", "file:"]);
        assert_eq!(ancestors("file:/"), [""; 0]);
    }

    #[test]
    fn stars_stay_within_segments_and_double_stars_do_not() {
        for (pattern, resource, yes) in [
            ("file:src/*", "file:src/lib.rs", true),
            ("file:src/*", "file:src/a/lib.rs", false),
            ("file:src/**", "file:src/a/lib.rs", true),
            ("file:**/*.rs", "file:src/a/lib.rs", true),
            ("file:**/*.rs", "file:src/a/lib.rs.bak", false),
            ("**", "queue:a/b", true),
            ("*", "queue:a", true),
            ("*", "queue:a/b", false),
            ("file:a*b*c", "file:aXbYbZc", true),
            ("file:**/a/*/c", "file:x/a/b/a/d/c", true),
            ("file:src", "file:src", true),
            ("file:src", "file:src/a", false),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, resource), yes, "{pattern} {resource}");
        }
    }

    #[test]
    fn regions_are_half_open() {
        let of = |pairs: &[(u64, u64)]| -> Vec<Region> {
            pairs
                .iter()
                .map(|(start, end)| Region {
                    start: *start,
                    end: *end,
                })
                .collect()
        };
        assert!(are_disjoint(&of(&[(0, 5)]), &of(&[(5, 9)])));
        assert!(!are_disjoint(&of(&[(0, 6)]), &of(&[(5, 9)])));
        assert!(!are_disjoint(&of(&[(0, 5)]), &[]));
        assert!(covers(&of(&[(0, 5), (5, 9)]), &of(&[(2, 8)])));
        assert!(!covers(&of(&[(0, 5), (6, 9)]), &of(&[(2, 8)])));
        assert!(!covers(&of(&[(0, 5)]), &[]));
        assert!(covers(&[], &[]));
        assert!(check_regions(&of(&[(3, 3)])).is_err());
        assert!(check_regions(&of(&[(0, 1); 64])).is_ok());
        assert!(
            check_regions(&of(&[(0, 1); 65]))
                .unwrap_err()
                .contains("64")
        );
    }

    #[test]
    fn a_kind_is_a_letter_and_then_letters_digits_and_dashes() {
        for kind in ["a", "ab", "a1", "a-b", "a-1-"] {
            let text = format!("{kind}:x");
            assert_eq!(normal_form(&text), Ok(text.clone()));
        }
        for kind in ["", "1", "-a", "A", "aB", "a_b", "a b", "a.b"] {
            assert!(normal_form(&format!("{kind}:x")).is_err(), "{kind}");
        }
    }

    #[test]
    fn a_region_ends_after_its_start_and_within_the_integers() {
        let end = limit::INTEGER_MAX;
        let region = |start, end| check_regions(&[Region { start, end }]).is_ok();
        assert!(region(0, 1) && region(end - 1, end) && region(0, end));
        assert!(!region(1, 1) && !region(2, 1) && !region(0, end + 1));
    }
}
