//! What we want to know of a certificate that webpki checks but does not tell: its validity, who signed it, and its
//! key even where the rest of it is not to webpki's taste.
//!
//! A walk over the first fields of a `TBSCertificate` (RFC 5280, section 4.1), without allocation: a full parse
//! would look at extensions nobody asks about, for each handshake.
//!
//! ```text
//! Certificate    ::= SEQUENCE { tbsCertificate, … }
//! TBSCertificate ::= SEQUENCE { [0] version?, serial, signature, issuer, validity, subject,
//!                               subjectPublicKeyInfo, … }
//! ```
//!
//! Out of scope: whether any of it is true. Only the verifier (`super::verify`) judges.
//!
//! Invariant: no input makes it panic, and it reads each byte at most once.

use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::certificate::Validity;

/// The part of a certificate that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Certificate<'a> {
    /// The first second at which it is valid, since the Unix epoch.
    pub(super) not_before_s: i64,
    /// The last second at which it is valid, since the Unix epoch.
    pub(super) not_after_s: i64,
    /// The distinguished name of whoever signed it, as DER,
    pub(super) issuer: &'a [u8],
    /// and of whom it is for.
    pub(super) subject: &'a [u8],
    /// Its public key: a `SubjectPublicKeyInfo` as DER.
    pub(super) key: &'a [u8],
}

/// A public key in its two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublicKey<'a> {
    /// The content of its `AlgorithmIdentifier`.
    pub(super) algorithm: &'a [u8],
    /// The key.
    pub(super) bits: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate; `None` if it is not one as far as we look.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let certificate = sequence(&mut { der })?;
        let mut fields = sequence(&mut { certificate })?;
        let first = element(&mut fields)?;
        if first.class() == Class::ContextSpecific {
            // That was the version, which is absent in version 1; the serial number follows.
            element(&mut fields)?;
        }
        let _signature_algorithm = sequence(&mut fields)?;
        let issuer = sequence(&mut fields)?;
        let (rest, validity) = Validity::from_der(fields).ok()?;
        fields = rest;
        let subject = sequence(&mut fields)?;
        let key_and_rest = fields;
        sequence(&mut fields)?;
        Some(Self {
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
            issuer,
            subject,
            key: &key_and_rest[..key_and_rest.len() - fields.len()],
        })
    }

    /// It names itself as its issuer: a root, or one that nobody else vouches for.
    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}

impl<'a> PublicKey<'a> {
    /// Takes a `SubjectPublicKeyInfo` apart (RFC 5280, section 4.1.2.7).
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut fields = sequence(&mut { der })?;
        let algorithm = sequence(&mut fields)?;
        let key = element(&mut fields)?;
        // The first byte says how many bits of the last one do not count: none in any key there is.
        let (unused_bits, bits) = key.data.split_first()?;
        (key.tag() == Tag::BitString && *unused_bits == 0).then_some(Self { algorithm, bits })
    }
}

/// Takes the next element off `input`.
fn element<'a>(input: &mut &'a [u8]) -> Option<Any<'a>> {
    let (rest, any) = Any::from_der(input).ok()?;
    *input = rest;
    Some(any)
}

/// Takes the next element, which has to be a SEQUENCE, off `input`, and returns its content.
fn sequence<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let any = element(input)?;
    (any.tag() == Tag::Sequence).then_some(any.data)
}
