//! The fuzzers' corpus, played by every `cargo test`.

use super::*;

#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[test]
fn corpus() {
    replay::replay("detection", detection);
    replay::replay("request_head", request_head);
    replay::replay("response_head", response_head);
    replay::replay("chunked_body", chunked_body);
    replay::replay("normal_form", normal_form);
    replay::replay("peer_frames", peer_frames);
    replay::replay("neutral_form", neutral_form);
    replay::replay("h2_blocks", h2_blocks);
    replay::replay("h2_frames", h2_frames);
}
