//! Challenges: what a caller signs, so that its signature is new.
//!
//! Nothing is remembered of a challenge that is given out: it carries its own end and a MAC under a key of this process, so that
//! callers who only ask cost no memory. That it is good once is seen to where the certificate is recorded.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use signet_identity::SharedClock;
use time::OffsetDateTime;

/// Gives challenges out and knows them again. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Challenges {
    key: hmac::Key,
    clock: SharedClock,
}

/// A challenge of our own that is not over.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) expires_at: OffsetDateTime,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unknown {
    #[error("the challenge is none of this issuer, or was given before it was started again")]
    Foreign,
    #[error("the challenge is too old")]
    Expired,
}

/// Seconds of the Unix epoch, random bytes, MAC of both.
const EXPIRY: usize = 8;
const RANDOM: usize = 16;
const MAC: usize = 32;
const LENGTH: usize = EXPIRY + RANDOM + MAC;
/// For one round trip and a signature of a slow device.
const LIFE: Duration = Duration::from_secs(60);

impl Challenges {
    pub(crate) fn new(clock: SharedClock) -> Result<Self, Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())?;
        Ok(Self { key, clock })
    }

    /// A new one, and when it ends.
    pub(crate) fn give(&self) -> Result<(Vec<u8>, OffsetDateTime), Unspecified> {
        let expires_at = (self.clock.now() + LIFE).replace_nanosecond(0).map_err(|_| Unspecified)?;
        let mut challenge = Vec::with_capacity(LENGTH);
        challenge.extend_from_slice(&expires_at.unix_timestamp().to_be_bytes());
        let mut random = [0; RANDOM];
        rand::fill(&mut random)?;
        challenge.extend_from_slice(&random);
        let mac = hmac::sign(&self.key, &challenge);
        challenge.extend_from_slice(mac.as_ref());
        Ok((challenge, expires_at))
    }

    pub(super) fn recognize(&self, challenge: &[u8]) -> Result<Known, Unknown> {
        if challenge.len() != LENGTH {
            return Err(Unknown::Foreign);
        }
        let (signed, mac) = challenge.split_at(LENGTH - MAC);
        // Compares in constant time.
        hmac::verify(&self.key, signed, mac).map_err(|_| Unknown::Foreign)?;
        let mut seconds = [0; EXPIRY];
        seconds.copy_from_slice(&signed[..EXPIRY]);
        let expires_at =
            OffsetDateTime::from_unix_timestamp(i64::from_be_bytes(seconds)).map_err(|_| Unknown::Foreign)?;
        if expires_at <= self.clock.now() {
            return Err(Unknown::Expired);
        }
        Ok(Known { expires_at })
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_identity::ManualClock;

    use super::*;

    fn challenges() -> (Challenges, ManualClock) {
        let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
        (Challenges::new(clock.shared()).unwrap(), clock)
    }

    #[test]
    fn a_challenge_is_known_again_until_it_is_too_old() {
        let (challenges, clock) = challenges();
        let (challenge, expires_at) = challenges.give().unwrap();
        assert_ne!(challenge, challenges.give().unwrap().0);
        assert_eq!(challenges.recognize(&challenge).unwrap().expires_at, expires_at);
        clock.set(expires_at - Duration::from_secs(1));
        challenges.recognize(&challenge).unwrap();
        clock.set(expires_at);
        assert_eq!(challenges.recognize(&challenge).unwrap_err(), Unknown::Expired);
    }

    #[test]
    fn what_is_altered_or_of_another_process_is_foreign() {
        let (challenges, _) = challenges();
        let (whole, _) = challenges.give().unwrap();
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert_eq!(challenges.recognize(&altered).unwrap_err(), Unknown::Foreign, "byte {at}");
        }
        for wrong in [&[][..], &whole[1..], &[&whole[..], &[0]].concat()] {
            assert_eq!(challenges.recognize(wrong).unwrap_err(), Unknown::Foreign);
        }
        let (other, _) = self::challenges();
        assert_eq!(other.recognize(&whole).unwrap_err(), Unknown::Foreign);
    }
}
