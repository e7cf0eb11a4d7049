//! Signatures as PKCS#11 has them, r and s one after the other, and as X.509 has them.

/// ECDSA-Sig-Value (RFC 3279 §2.2.3) of a signature on P-256 in the form of PKCS#11 (v3.0, §2.3.1). None for what is none.
pub(super) fn in_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = (raw.len() == 64).then(|| raw.split_at(32))?;
    if r.iter().all(|byte| *byte == 0) || s.iter().all(|byte| *byte == 0) {
        return None;
    }
    Some(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(r, true);
            writer.next().write_bigint_bytes(s, true);
        });
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::super::Public;
    use super::*;

    #[test]
    fn a_raw_signature_becomes_one_that_x509_takes() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = Public::Point(key.public_key().as_ref().to_vec());
        // Numbers with leading zeros and with the top bit set come up among so many.
        for number in 0_u32..600 {
            let message = number.to_be_bytes();
            let raw = key.sign(&SystemRandom::new(), &message).unwrap();
            let signature = in_der(raw.as_ref()).unwrap();
            assert!(public.has_signed_for_x509(&message, &signature));
            assert!(!public.has_signed_for_x509(b"another", &signature));
            assert!(
                public.has_signed_for_jws(&message, raw.as_ref()) && !public.has_signed_for_jws(&message, &signature)
            );
        }
    }

    #[test]
    fn what_is_no_signature_is_none() {
        for wrong in [&[][..], &[1; 63], &[1; 65], &[0; 64], &[1; 96]] {
            assert_eq!(in_der(wrong), None);
        }
        let half = [[0; 32], [1; 32]].concat();
        assert_eq!(in_der(&half), None);
    }
}
