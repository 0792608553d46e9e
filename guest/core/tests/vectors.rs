//! Runs every vector in the core itself, without a component around it: a quick proof that it still says the same.
//!
//! The component in a sandbox runs the same files in `tests/vectors.rs`.

// Both serve other tests as well, so that here a part of them is idle.
#[allow(dead_code)]
#[path = "../../../tests/support/native.rs"]
mod native;
#[allow(dead_code)]
#[path = "../../../tests/support/vector.rs"]
mod vector;

#[test]
fn every_vector_holds_in_the_core() {
    let files = vector::files(&vector::folder(env!("CARGO_MANIFEST_DIR")));
    assert!(files.len() > 300, "the vectors are not where they were");
    let failed: Vec<String> = files
        .iter()
        .filter_map(|(name, text)| {
            let failed = vector::check::<native::Native>(text).err()?;
            Some(format!("{name}: {failed}"))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
