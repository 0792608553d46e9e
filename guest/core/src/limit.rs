//! The bounds of everything that comes from outside, in one table.
//!
//! Does not test anything itself: whoever reads an input tests it against these and names the bound in the refusal.
//! A configuration may lower the ones in [`crate::config::Limits`]; nothing raises them.

/// Largest integer in any input or record: 2^53 - 1, exact in every host language.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Bytes of an id.
pub const ID_BYTES_MAX: usize = 128;
/// Bytes of a session name.
pub const SESSION_BYTES_MAX: usize = 256;
/// Bytes of an inline payload.
pub const PAYLOAD_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of the uri of a payload reference.
pub const URI_BYTES_MAX: usize = 1024;
/// Bytes of a content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// Bytes of a plan in canonical form, and of the text it is read from.
pub const PLAN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of the text that a plan is read from; white space and escapes may make it longer than its canonical form.
pub const PLAN_TEXT_BYTES_MAX: usize = 2 * PLAN_BYTES_MAX as usize;
/// Bytes of a configuration.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Steps of a plan.
pub const PLAN_STEPS_MAX: u64 = 10_000;
/// Dependencies of a step.
pub const STEP_DEPENDENCIES_MAX: usize = 4_096;
/// Dependencies of a plan, all steps together.
pub const PLAN_DEPENDENCIES_MAX: usize = 100_000;
/// Entries of a backoff table.
pub const BACKOFF_MAX: usize = 16;
/// Required fields of an expected output.
pub const REQUIRED_FIELDS_MAX: usize = 64;
/// Bytes of the name of a required field.
pub const REQUIRED_FIELD_BYTES_MAX: usize = 128;
/// Bytes of an objective.
pub const OBJECTIVE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a reason or a message.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of a resource name or pattern.
pub const RESOURCE_BYTES_MAX: usize = 512;
/// Bytes of a base version.
pub const BASE_VERSION_BYTES_MAX: usize = 256;
/// Claims, and owned resources, of a step.
pub const STEP_CLAIMS_MAX: usize = 2_048;
/// Regions of a claim.
pub const REGIONS_MAX: usize = 64;
/// Rules, and owners, and high-risk patterns, of a policy.
pub const POLICY_ENTRIES_MAX: usize = 256;
/// Holders that one contest names; more than these only bar a claim.
pub const CONTEST_HOLDERS_MAX: usize = 16;
/// Levels of human review.
pub const LEVELS_MAX: usize = 8;
/// Sessions that one level asks.
pub const LEVEL_SESSIONS_MAX: usize = 16;
/// Approvals that a plan may require.
pub const APPROVALS_MAX: u64 = 16;
/// Depth of added steps and child plans below a plan.
pub const DEPTH_MAX: u32 = 5;
/// Extensions of an envelope.
pub const EXTENSIONS_MAX: usize = 32;
/// Bytes of the name of an extension.
pub const EXTENSION_NAME_BYTES_MAX: usize = 64;
/// Bytes of the text of an extension.
pub const EXTENSION_TEXT_BYTES_MAX: usize = 1024;
/// Bytes of a trace field.
pub const TRACE_BYTES_MAX: usize = 128;
/// Longest duration: 400 days, in milliseconds.
pub const DURATION_MS_MAX: u64 = 400 * 24 * 60 * 60 * 1000;
/// Latest time of a call and latest deadline of a plan, in milliseconds since the epoch: what counts from them, such as an
/// attempt's deadline and then a grace, stays an integer that every host holds.
pub const TIME_MS_MAX: u64 = INTEGER_MAX - 2 * DURATION_MS_MAX;
/// Envelopes, keys or notices of one call.
pub const BATCH_MAX: u64 = 1_024;
/// Timers that one call may fire.
pub const TIMERS_A_CALL_MAX: usize = 4_096;
/// Coordinations of a domain that are not closed.
pub const LIVE_COORDINATIONS_MAX: u64 = 100_000;
/// Steps of all live coordinations of a domain.
pub const LIVE_STEPS_MAX: u64 = 2_000_000;
/// Bytes of payload of all live coordinations of a domain.
pub const LIVE_PAYLOAD_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Messages out at once that a configuration may ask for.
pub const IN_FLIGHT_MAX: u64 = 100_000;
/// Records of late, and of rejected, input of one attempt.
pub const KEPT_INPUTS_AN_ATTEMPT_MAX: u32 = 16;
/// Retries of a step that use no budget, all together.
pub const FREE_RETRIES_MAX: u32 = 3;
/// Attempts of a step outside its policy up to which a timeout of a question may stand for an approval of another.
pub const SILENT_ATTEMPTS_MAX: u32 = 3;
/// What a caller waits before it tries again at a bound, in milliseconds.
pub const RETRY_AFTER_MS: u64 = 1_000;
/// Waits after each redelivery of a message, in milliseconds; as many redeliveries as entries.
pub const REDELIVERY_MS: [u64; 5] = [5_000, 25_000, 120_000, 600_000, 600_000];
/// How long a ready step waits to rise one tier, in milliseconds.
pub const AGEING_MS: u64 = 30_000;
/// Waits before retries where the plan gives none, in milliseconds.
pub const BACKOFF_MS_DEFAULT: [u64; 4] = [5_000, 25_000, 120_000, 600_000];

const _: () = assert!(BACKOFF_MS_DEFAULT.len() <= BACKOFF_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX < PLAN_BYTES_MAX);
const _: () = assert!(PLAN_STEPS_MAX <= LIVE_STEPS_MAX);
const _: () = assert!(LIVE_PAYLOAD_BYTES_MAX < INTEGER_MAX);
