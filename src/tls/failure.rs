//! From what rustls says to the failure classes that are stored.
//!
//! Out of scope: deadlines (`tls_timeout` is the probe's) and the end of the stream (`closed_early`, `reset`).

use rustls::{CertificateError, Error};

use crate::sample::Failure;

/// The class of an error; each has exactly one.
pub(super) fn class(error: &Error) -> Failure {
    match error {
        Error::InvalidCertificate(error) => certificate_class(error),
        Error::AlertReceived(_) => Failure::TlsAlert,
        // Not TLS, broken TLS, no version or cipher in common. What is left over are our own troubles (no entropy,
        // no clock), which Linux does not have.
        _ => Failure::TlsProtocol,
    }
}

fn certificate_class(error: &CertificateError) -> Failure {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::TlsExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Failure::TlsNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Failure::TlsName
        }
        // An incomplete chain is this too: what is missing cannot be told from what we do not trust.
        CertificateError::UnknownIssuer => Failure::TlsUntrusted,
        // Bad encoding, bad signatures (of the handshake too: the key is not the certificate's), weak algorithms,
        // wrong purpose, name constraints, path lengths, and what webpki will think of next.
        _ => Failure::TlsChain,
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;
    use rustls::{InvalidMessage, PeerIncompatible, PeerMisbehaved};

    use super::*;

    #[test]
    fn each_kind_of_error_has_its_class() {
        let certificate = |error: CertificateError| class(&Error::InvalidCertificate(error));
        assert_eq!(certificate(CertificateError::Expired), Failure::TlsExpired);
        assert_eq!(certificate(CertificateError::NotValidYet), Failure::TlsNotYetValid);
        assert_eq!(certificate(CertificateError::NotValidForName), Failure::TlsName);
        assert_eq!(certificate(CertificateError::UnknownIssuer), Failure::TlsUntrusted);
        assert_eq!(certificate(CertificateError::Revoked), Failure::TlsChain);
        assert_eq!(certificate(CertificateError::BadSignature), Failure::TlsChain);
        assert_eq!(class(&Error::AlertReceived(AlertDescription::HandshakeFailure)), Failure::TlsAlert);
        assert_eq!(class(&Error::DecryptError), Failure::TlsProtocol);
        assert_eq!(class(&Error::InvalidMessage(InvalidMessage::InvalidContentType)), Failure::TlsProtocol);
        assert_eq!(
            class(&Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)),
            Failure::TlsProtocol
        );
        assert_eq!(
            class(&Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments)),
            Failure::TlsProtocol
        );
    }
}
