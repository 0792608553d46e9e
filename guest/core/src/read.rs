//! Reading JSON from outside so that every error is found, not only the first.
//!
//! Knows forms and bounds of single members; what members mean together is checked by who reads them.

use crate::json::{self, Json, Member};
use crate::limit::INTEGER_MAX;
use crate::order;
use crate::receipt::{Blame, Problem};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};

/// What every object of one text shares.
#[derive(Default)]
pub(crate) struct Problems {
    /// All problems found so far.
    found: RefCell<Vec<Problem>>,
    /// Members that were asked for, of the objects that are being read, the innermost last.
    asked: RefCell<Vec<&'static str>>,
}

impl Problems {
    fn push(&self, problem: Problem) {
        self.found.borrow_mut().push(problem);
    }

    pub(crate) fn into_inner(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// A JSON object that is being read, member by member. Where it stands is put into words only for a problem.
pub(crate) struct Object<'a> {
    /// None where the whole object is absent or no object, which is noted.
    members: Option<&'a [Member<'a>]>,
    /// What it stands in, under which name, and where that is a list at which place; none for the whole text.
    within: Option<(&'a Object<'a>, &'a str, Option<usize>)>,
    step_id: Option<&'a str>,
    /// Where the member behind the one that was found last stands.
    next: Cell<usize>,
    /// The members that were found, a bit for each as long as there are some.
    found: Cell<u64>,
    /// Where what it was asked for begins among all that is kept of that, and how much that is.
    first: usize,
    asked: Cell<usize>,
    problems: &'a Problems,
}

impl<'a> Object<'a> {
    /// The whole text as an object; notes a problem where it is none.
    pub(crate) fn new(value: &'a Json<'a>, problems: &'a Problems) -> Option<Self> {
        let whole = Self {
            members: None,
            within: None,
            step_id: None,
            next: Cell::new(0),
            found: Cell::new(0),
            first: 0,
            asked: Cell::new(0),
            problems,
        };
        whole.filled(value)
    }

    /// This object with the members of a value; notes a problem where that is no object.
    fn filled(mut self, value: &'a Json<'a>) -> Option<Self> {
        if let Json::Object(members) = value {
            self.members = Some(members);
            return Some(self);
        }
        let field = match self.path() {
            path if path.is_empty() => "$".to_owned(),
            path => path,
        };
        let message = format!("is {}; an object is expected", kind(value));
        self.problems.push(Problem {
            step_id: self.step_id.map(str::to_owned),
            field,
            code: "wrong-type".into(),
            message,
        });
        None
    }

    /// An object within this one, without members yet.
    fn inner<'o>(&'o self, name: &'o str, index: Option<usize>) -> Object<'o> {
        Object {
            members: None,
            within: Some((self, name, index)),
            step_id: self.step_id,
            next: Cell::new(0),
            found: Cell::new(0),
            first: self.first + self.asked.get(),
            asked: Cell::new(0),
            problems: self.problems,
        }
    }

    /// From here on problems are those of this step.
    pub(crate) fn set_step(&mut self, step_id: &'a str) {
        self.step_id = Some(step_id);
    }

    /// Where it stands; empty for the whole text.
    #[inline(never)]
    fn path(&self) -> String {
        match self.within {
            None => String::new(),
            Some((object, name, None)) => object.path_of(name),
            Some((object, name, Some(index))) => format!("{}[{index}]", object.path_of(name)),
        }
    }

    /// Its place in the list that it stands in; 0 where that is none.
    pub(crate) fn index(&self) -> usize {
        self.within
            .and_then(|(_, _, index)| index)
            .unwrap_or_default()
    }

    /// Path of a member.
    #[inline(never)]
    pub(crate) fn path_of(&self, name: &str) -> String {
        let mut path = self.path();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        path
    }

    /// Notes a problem with a member.
    pub(crate) fn problem<'m>(&self, name: &str, code: &str, message: impl Into<Cow<'m, str>>) {
        self.note(name, code, message.into());
    }

    // One copy for all types of messages.
    #[inline(never)]
    fn note(&self, name: &str, code: &str, message: Cow<'_, str>) {
        let (step_id, field) = (self.step_id.map(str::to_owned), self.path_of(name));
        self.problems.push(Problem {
            step_id,
            field,
            code: code.into(),
            message: message.into_owned(),
        });
    }

    /// Notes a problem at a path, for a step that is not being read any more.
    pub(crate) fn problem_of(&self, step_id: &str, field: String, code: &str, message: String) {
        let step_id = Some(step_id.to_owned());
        self.problems.push(Problem {
            step_id,
            field,
            code: code.into(),
            message,
        });
    }

    fn wrong_type(&self, name: &str, value: &Json<'_>, expected: &str) {
        self.problem(
            name,
            "wrong-type",
            format!("is {}; {expected} is expected", kind(value)),
        );
    }

    /// A member as it stands; null is a problem, since an absent member is left out.
    pub(crate) fn get(&self, name: &'static str) -> Option<&'a Json<'a>> {
        self.note_asked(name);
        let members = self.members?;
        let place = json::place_of(members, self.next.get(), name)?;
        self.next.set(place + 1);
        if place < 64 {
            self.found.set(self.found.get() | 1 << place);
        }
        match &members[place].1 {
            Json::Null => {
                self.problem(name, "wrong-type", "is null; leave an absent member out");
                None
            }
            other => Some(other),
        }
    }

    fn note_asked(&self, name: &'static str) {
        let mut asked = self.problems.asked.borrow_mut();
        // What stands behind is of an object within this one that nobody reads any more.
        asked.truncate(self.first + self.asked.get());
        asked.push(name);
        self.asked.set(self.asked.get() + 1);
    }

    /// Notes the absence of a member that must be there.
    pub(crate) fn require(&self, name: &'static str) {
        if self
            .members
            .is_some_and(|members| json::place_of(members, 0, name).is_none())
        {
            self.problem(name, "missing", "is missing");
        }
    }

    /// A text in a form that `check` knows.
    pub(crate) fn text(
        &self,
        name: &'static str,
        check: &dyn Fn(&str) -> Result<(), String>,
    ) -> Option<String> {
        self.borrowed(name, check).map(str::to_owned)
    }

    /// The same, as it stands in the text.
    #[inline(never)]
    pub(crate) fn borrowed(
        &self,
        name: &'static str,
        check: &dyn Fn(&str) -> Result<(), String>,
    ) -> Option<&'a str> {
        match self.get(name)? {
            Json::Text(text) => match check(text) {
                Ok(()) => Some(text),
                Err(says) => {
                    self.problem(name, "out-of-bound", says);
                    None
                }
            },
            other => {
                self.wrong_type(name, other, "text");
                None
            }
        }
    }

    /// A whole number within bounds, both of them included.
    pub(crate) fn integer(&self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let value = self.get(name)?;
        self.integer_of(name, value, min, max)
    }

    fn integer_of(&self, name: &str, value: &Json<'_>, min: u64, max: u64) -> Option<u64> {
        let max = max.min(INTEGER_MAX);
        let is = match value {
            Json::Whole(number) if (min..=max).contains(number) => return Some(*number),
            Json::Whole(number) => number.to_string(),
            Json::Negative(number) => number.to_string(),
            Json::Fraction => "not a whole number".into(),
            _ => {
                self.wrong_type(name, value, "a whole number");
                return None;
            }
        };
        let says = format!("is {is}; whole numbers {min}..{max} are allowed");
        self.problem(name, "out-of-bound", says);
        None
    }

    /// A list of whole numbers within bounds.
    pub(crate) fn integers(
        &self,
        name: &'static str,
        count_max: usize,
        min: u64,
        max: u64,
    ) -> Option<Vec<u64>> {
        let values = self.list(name, count_max)?;
        let read = |(index, value)| self.integer_of(&format!("{name}[{index}]"), value, min, max);
        Some(values.iter().enumerate().filter_map(read).collect())
    }

    /// A list of texts in a form that `check` knows.
    pub(crate) fn texts(
        &self,
        name: &'static str,
        count_max: usize,
        check: &dyn Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        let mut texts = Vec::new();
        for (index, value) in self.list(name, count_max)?.iter().enumerate() {
            let member = || format!("{name}[{index}]");
            match value {
                Json::Text(text) => match check(text) {
                    Ok(()) => texts.push(text.clone().into_owned()),
                    Err(says) => self.problem(&member(), "out-of-bound", says),
                },
                other => self.wrong_type(&member(), other, "text"),
            }
        }
        Some(texts)
    }

    /// true or false.
    pub(crate) fn boolean(&self, name: &'static str) -> Option<bool> {
        match self.get(name)? {
            Json::Bool(value) => Some(*value),
            other => {
                self.wrong_type(name, other, "true or false");
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T>(
        &self,
        name: &'static str,
        words: &[&str],
        from_name: fn(&str) -> Option<T>,
    ) -> Option<T> {
        let word = self.word(name)?;
        let read = from_name(word);
        if read.is_none() {
            self.unknown_word(name, word, words);
        }
        read
    }

    #[inline(never)]
    fn word(&self, name: &'static str) -> Option<&'a str> {
        match self.get(name)? {
            Json::Text(word) => Some(word),
            other => {
                self.wrong_type(name, other, "text");
                None
            }
        }
    }

    #[inline(never)]
    pub(crate) fn unknown_word(&self, name: &str, word: &str, words: &[&str]) {
        let says = format!("is {word}; one of {} is expected", words.join(", "));
        self.problem(name, "out-of-bound", says);
    }

    /// A list of at most so many entries.
    pub(crate) fn list(&self, name: &'static str, count_max: usize) -> Option<&'a [Json<'a>]> {
        match self.get(name)? {
            Json::List(values) if values.len() <= count_max => Some(values),
            Json::List(values) => {
                let says = format!("has {} entries; {count_max} are allowed", values.len());
                self.problem(name, "out-of-bound", says);
                None
            }
            other => {
                self.wrong_type(name, other, "a list");
                None
            }
        }
    }

    /// Whether a member is a list without entries, which is not the same as one without a good entry.
    pub(crate) fn is_empty_list(&self, name: &str) -> bool {
        let found = self.members.and_then(|members| {
            let place = json::place_of(members, 0, name)?;
            Some(&members[place].1)
        });
        matches!(found, Some(Json::List(values)) if values.is_empty())
    }

    /// An object within this one.
    pub(crate) fn object(&self, name: &'static str) -> Option<Object<'_>> {
        let value = self.get(name)?;
        self.inner(name, None).filled(value)
    }

    /// An object within a list of this one.
    pub(crate) fn entry<'o>(
        &'o self,
        name: &'static str,
        index: usize,
        value: &'o Json<'o>,
    ) -> Option<Object<'o>> {
        self.inner(name, Some(index)).filled(value)
    }

    /// A value within this one, which stands at a name, as an object; one without members where it is none.
    pub(crate) fn at<'o>(&'o self, name: &'o str, value: Option<&'o Json<'o>>) -> Object<'o> {
        let object = value.and_then(|value| self.inner(name, None).filled(value));
        object.unwrap_or_else(|| self.inner(name, None))
    }

    /// The name of its member, if there is no other.
    pub(crate) fn only_name(&self) -> Option<&'a str> {
        match self.members? {
            [(name, _)] => Some(name),
            _ => None,
        }
    }

    /// Notes every member that nobody asked for.
    pub(crate) fn done(self) {
        let members = self.members.unwrap_or_default();
        let all = 1_u64.checked_shl(members.len() as u32);
        if all.is_some_and(|all| self.found.get() == all - 1) {
            return;
        }
        self.note_unknown(members);
    }

    #[inline(never)]
    fn note_unknown(&self, members: &[Member<'_>]) {
        let known = {
            let asked = self.problems.asked.borrow();
            let known = asked.get(self.first..self.first + self.asked.get());
            debug_assert!(known.is_some(), "one object at a time is read");
            known.unwrap_or_default().to_vec()
        };
        let names = members.iter().map(|(name, _)| &**name);
        let unknown = names.filter(|name| !known.contains(name)).collect();
        for name in order::sort(unknown, |a: &&str, b| a.cmp(b)) {
            let says = format!("is unknown; known here are {}", known.join(", "));
            // A member without a name would have no path.
            let name = if name.is_empty() { "\"\"" } else { name };
            self.problem(name, "unknown-member", says);
        }
    }
}

/// What a JSON value is, for a sentence.
pub(crate) fn kind(value: &Json<'_>) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a truth value",
        Json::Whole(_) | Json::Negative(_) | Json::Fraction => "a number",
        Json::Text(_) => "text",
        Json::List(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// Problems as what is to blame: the first one's member, and a sentence for each.
pub(crate) fn blame(problems: &[Problem]) -> Blame {
    let says = |problem: &Problem| format!("{} {}", problem.field, problem.message);
    let message = problems.iter().map(says).collect::<Vec<_>>().join("; ");
    let field = problems.first().map_or("$", |problem| &problem.field);
    Blame::new(field, message)
}

/// The problem of a text that is no JSON at all.
pub(crate) fn syntax_problem(error: &serde_json::Error) -> Problem {
    let field = format!("line {} column {}", error.line(), error.column());
    let message = format!("is not JSON: {error}");
    Problem {
        step_id: None,
        field,
        code: "syntax".into(),
        message,
    }
}
