//! What a parent answers, before the issuer is brought it.

use aws_lc_rs::digest::{SHA256, digest};
use pem::{EncodeConfig, LineEnding, Pem};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::plan::Authority;
use crate::failure::Failure;

/// Of the name of a key: of the SHA-256 of its SubjectPublicKeyInfo.
const NAME_BYTES: usize = 20;

/// PEM for the issuer: the certificate of the key that was asked about, and those above it. The issuer takes several chains at once, and
/// begins another at each certificate for a key of its own: a parent that answers with two would change one that signs, or has signed.
pub(super) fn for_key(key: &str, authorities: &[Authority], chain: Vec<Vec<u8>>) -> Result<String, Failure> {
    let refused = |what: &str| Failure::new(format!("the parent answered with {what}"));
    let keys = chain.iter().map(|der| key_of(der)).collect::<Option<Vec<_>>>();
    let keys = keys.ok_or_else(|| refused("something else than certificates"))?;
    match keys.split_first() {
        None => return Err(refused("no certificate")),
        Some((own, _)) if own != key => return Err(refused("a certificate for another key than was asked about")),
        Some((_, above)) if above.iter().any(|key| authorities.iter().any(|authority| authority.key == *key)) => {
            return Err(refused("certificates for several keys of the issuer's, and one was asked about"));
        }
        Some(_) => {}
    }
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Ok(chain.into_iter().map(|der| pem::encode_config(&Pem::new("CERTIFICATE", der), config)).collect())
}

/// The name by which an issuer knows the key of a certificate.
pub(super) fn key_of(der: &[u8]) -> Option<String> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let name = digest(&SHA256, certificate.public_key().raw);
    rest.is_empty().then(|| hex::encode(&name.as_ref()[..NAME_BYTES]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_test_pki::Authority as Ca;
    use time::OffsetDateTime;

    use super::super::plan::Stage;
    use super::*;

    fn of_the_issuer(ca: &Ca, stage: Stage) -> Authority {
        Authority {
            key: key_of(ca.certificate()).unwrap(),
            stage,
            since: OffsetDateTime::UNIX_EPOCH,
            not_after: None,
            above: None,
            request: String::new(),
        }
    }

    #[test]
    fn one_chain_is_brought_and_it_is_for_the_key_that_was_asked_about() {
        let parent = Ca::root("example.org").intermediate();
        let [asked, active, retired] = [(); 3].map(|()| parent.intermediate());
        let authorities = [(&asked, Stage::Requested), (&active, Stage::Active), (&retired, Stage::Over)]
            .map(|(ca, stage)| of_the_issuer(ca, stage));
        let chain = |of: &[&Ca]| of.iter().flat_map(|ca| ca.chain()).map(|der| der.to_vec()).collect::<Vec<_>>();
        let answer = |chain| for_key(&authorities[0].key, &authorities, chain).map_err(|failure| failure.to_string());

        let brought = answer(chain(&[&asked])).unwrap();
        assert_eq!(pem::parse_many(&brought).unwrap().len(), 2);
        for (wrong, what) in [
            (chain(&[&active]), "for another key"),
            (chain(&[&parent, &asked]), "for another key"),
            (chain(&[&asked, &active]), "for several keys"),
            (chain(&[&asked, &retired]), "for several keys"),
            (chain(&[&asked, &asked]), "for several keys"),
            (Vec::new(), "no certificate"),
            ([chain(&[&asked]), vec![b"junk".to_vec()]].concat(), "something else"),
            (vec![[asked.certificate().to_vec(), active.certificate().to_vec()].concat()], "something else"),
        ] {
            let refused = answer(wrong).unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
    }
}
