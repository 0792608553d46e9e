//! A request to the JSON door.
//!
//! Must hold: nothing panics; a request that is read says what it says to a general reader of JSON, and again when it is
//! written anew; one that is refused is answered with an error of the one form, which names a member.

use qm2_core::call::{Answer, Call};
use qm2_core::door;
use qm2_core::receipt::{CallError, Head};
use serde_json::Value;

/// Reads the request.
///
/// # Panics
/// Where something does not hold.
pub fn run(data: &[u8]) {
    match read(data) {
        Ok(call) => {
            let again = serde_json::to_string(&call).expect("a call has a JSON form");
            assert_eq!(read(again.as_bytes()), Ok(call.clone()), "{again}");
            // A general reader takes some more, such as a time that is left out, and of two members of a name none.
            if let Ok(general) = serde_json::from_slice::<Call>(data) {
                assert_eq!(general, call);
            }
        }
        Err(answer) => {
            let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
            let error = &answer["error"];
            assert_eq!(error["code"], "invalid-request", "{answer}");
            for name in ["message", "field"] {
                let text = error[name].as_str();
                assert!(text.is_some_and(|text| !text.is_empty()), "{answer}");
            }
        }
    }
}

/// The call that is read, or the answer.
fn read(request: &[u8]) -> Result<Call, String> {
    let mut read = None;
    let answer = door::answer_bytes(request, &mut |call| {
        read = Some(call.clone());
        Ok::<_, CallError>(Answer::Head(Head::default()))
    });
    read.ok_or(answer)
}
