//! What callers send to prove who they are, and the key sets that it is believed by: none of it panics, and nothing forged is
//! believed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| identity_issuer::fuzzing::attestation(bytes));
