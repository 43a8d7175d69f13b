//! The fuzzers' corpus, played by every `cargo test`.

use super::*;

#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[test]
fn corpus() {
    replay::replay("spiffe_id", spiffe_id);
    replay::replay("control", control);
}
