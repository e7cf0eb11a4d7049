//! Requests, answers and bodies of HTTP/1.1, in pieces of any size; what they must come to is in the gateway.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| signet_gateway::fuzzing::http1(data));
