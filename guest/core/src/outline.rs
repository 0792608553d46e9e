//! The outline of a ledger line: whether it is canonical JSON with the members of a record, in their order.
//!
//! For a host that looks at every line that a component hands out: nothing is kept of what is read. Whether the members of
//! the data are those of its type, and what they say, is tested where a record is read; the hash is [`crate::ledger`]'s.

use crate::codec::{Input, Malformed, name};

/// How deep lists and objects may stand within each other: more than any member of a record needs, and too little for the stack.
const DEPTH_MAX: u32 = 32;

/// Tests a line.
///
/// # Errors
/// Where it stops being what a record can be.
pub fn check(line: &str) -> Result<(), Malformed> {
    let mut input = Input::new(line);
    let input = &mut input;
    input.open();
    for required in [name!("v"), name!("seq"), name!("atMs")] {
        input.required(required);
        input.digits();
    }
    input.required(name!("type"));
    input.string();
    for optional in [name!("coordinationId"), name!("stepId")] {
        if input.next(optional) {
            input.string();
        }
    }
    for optional in [name!("attempt"), name!("cause")] {
        if input.next(optional) {
            input.digits();
        }
    }
    if input.next(name!("trace")) {
        object(input, DEPTH_MAX);
    }
    input.required(name!("data"));
    object(input, DEPTH_MAX);
    for required in [name!("prev"), name!("hash")] {
        input.required(required);
        input.string();
    }
    input.close();
    input.end()
}

fn object(input: &mut Input<'_>, depth: u32) {
    input.open();
    input.until(b'}', &mut |input| {
        input.string();
        input.byte(b':', "a colon");
        value(input, depth);
    });
}

fn value(input: &mut Input<'_>, depth: u32) {
    let Some(depth) = depth.checked_sub(1) else {
        input.fail("fewer lists and objects within each other");
        return;
    };
    match input.peek() {
        Some(b'"') => {
            input.string();
        }
        Some(b'{') => object(input, depth),
        Some(b'[') => {
            input.byte(b'[', "a list");
            input.until(b']', &mut |input| value(input, depth));
        }
        Some(b't' | b'f') => {
            input.flag();
        }
        _ => {
            input.digits();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = concat!(
        r#"{"v":1,"seq":12,"atMs":3,"type":"step.completed","coordinationId":"c","stepId":"s","attempt":1,"cause":11,"#,
        r#""trace":{"traceparent":"a"},"data":{"a":"\"\u0000é","b":[],"c":[{"d":true},false,[0,9007199254740991]],"e":{}},"#,
        r#""prev":"0","hash":"1"}"#
    );

    #[test]
    fn line_of_every_form_is_taken() {
        assert_eq!(check(LINE), Ok(()));
        let of_domain =
            r#"{"v":1,"seq":1,"atMs":3,"type":"ledger.genesis","data":{},"prev":"0","hash":"1"}"#;
        assert_eq!(check(of_domain), Ok(()));
    }

    #[test]
    fn what_is_not_canonical_or_no_record_is_said_with_its_place() {
        for (from, to) in [
            ("\"seq\":12", "\"seq\":012"),
            ("\"seq\":12", "\"seq\":-1"),
            ("\"seq\":12", "\"seq\":1.0"),
            ("\"seq\":12", "\"seq\":9007199254740992"),
            ("\"seq\":12", "\"seq\": 12"),
            ("\"seq\":12,\"atMs\":3", "\"atMs\":3,\"seq\":12"),
            ("\"seq\":12,", ""),
            ("\"stepId\":\"s\"", "\"stepId\":\"s\",\"stepId\":\"s\""),
            ("\"stepId\":\"s\"", "\"stepId\":7"),
            ("\\u0000", "\u{0}"),
            ("\\u0000", "\n"),
            ("\\u0000", "\\u0041"),
            ("\\u0000", "\\x"),
            ("true", "True"),
            ("true", "null"),
            ("\"b\":[]", "\"b\":[,]"),
            ("\"b\":[]", "\"b\":[0,]"),
            ("\"b\":[]", "\"b\":[0 ]"),
            ("\"b\":[]", "\"b\":[0"),
            ("\"b\":[]", "\"b\""),
            ("\"b\":[]", "b:[]"),
            ("\"e\":{}}", "\"e\":{},}"),
            ("\"e\":{}}", "\"e\":{}"),
            ("\"data\":{", "\"data\":[{"),
            ("\"hash\":\"1\"}", "\"hash\":\"1\""),
            ("\"hash\":\"1\"}", "\"hash\":\"1\"} "),
            ("\"hash\":\"1\"}", "\"hash\":\"1\",\"more\":1}"),
        ] {
            let changed = LINE.replacen(from, to, 1);
            assert_ne!(changed, LINE, "{from}");
            let fault = check(&changed).expect_err(&changed);
            assert!(fault.at <= changed.len(), "{fault} in {changed}");
        }
        for cut in (0..LINE.len()).filter(|cut| LINE.is_char_boundary(*cut)) {
            assert!(check(&LINE[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn depth_has_its_bound() {
        let within = |depth: usize| {
            let list = "[".repeat(depth) + &"]".repeat(depth);
            check(&LINE.replacen("[]", &list, 1))
        };
        // The data is one, and what a list holds would be one more.
        assert_eq!(within(32), Ok(()));
        assert!(within(33).is_err());
        assert!(within(100_000).is_err());
    }
}
