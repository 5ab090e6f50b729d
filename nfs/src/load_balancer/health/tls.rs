//! The TLS of a check: a client that reads and writes bytes, and knows no socket.

use super::config::HealthConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

/// What every connection of a check begins with.
#[derive(Debug)]
pub(super) struct TlsClient {
    config: Arc<ClientConfig>,
    /// Who the server has to be, unless it is its address.
    name: Option<ServerName<'static>>,
}

/// Makes it, and reads the file of certificates. Only what looks at their validity reads a clock, rustls's own.
pub(super) fn client(config: &HealthConfig) -> Result<TlsClient, (&'static str, String)> {
    let provider = Arc::new(ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| ("kind", error.to_string()))?;
    let builder = match (config.verify.unwrap_or(true), &config.ca_file) {
        (false, Some(_)) => return Err(("ca_file", "nothing is verified: leave it out, or verify".to_owned())),
        (false, None) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        (true, None) => {
            let message = "name a file of certificates to believe, or say verify = false";
            return Err(("ca_file", message.to_owned()));
        }
        (true, Some(file)) => {
            let unreadable = |error: &dyn std::fmt::Display| ("ca_file", format!("{}: {error}", file.display()));
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if roots.is_empty() {
                return Err(("ca_file", format!("there is no certificate in {}", file.display())));
            }
            builder.with_root_certificates(roots)
        }
    };
    let name = match (&config.server_name, &config.host) {
        (Some(name), _) => Some(("server_name", name.clone())),
        // A host may have a port behind it.
        (None, Some(host)) => Some(("host", host.split(':').next().unwrap_or(host).to_owned())),
        (None, None) => None,
    };
    let name = name.map(|(key, name)| {
        ServerName::try_from(name.clone()).map_err(|_| (key, format!("{name:?} is no name of a server")))
    });
    Ok(TlsClient { config: Arc::new(builder.with_no_client_auth()), name: name.transpose()? })
}

/// A connection.
#[derive(Debug)]
pub(super) struct TlsSession {
    connection: ClientConnection,
    /// What is to be sent: a handshake, a request.
    outgoing: Vec<u8>,
}

impl TlsSession {
    pub(super) fn begin(client: &TlsClient, address: IpAddr, request: &[u8]) -> Result<Self, Error> {
        let name = client.name.clone().unwrap_or_else(|| address.into());
        let mut connection = ClientConnection::new(Arc::clone(&client.config), name)?;
        // It keeps the request until it may send it.
        connection.writer().write_all(request).map_err(|error| Error::General(error.to_string()))?;
        let mut session = Self { connection, outgoing: Vec::new() };
        session.fill();
        Ok(session)
    }

    /// What is to be sent; the caller says how much of it was.
    pub(super) fn outgoing(&mut self) -> &[u8] {
        self.fill();
        &self.outgoing
    }

    pub(super) fn sent(&mut self, length: usize) {
        self.outgoing.drain(..length);
    }

    fn fill(&mut self) {
        while self.connection.wants_write() {
            // A vector takes everything.
            let _ = self.connection.write_tls(&mut self.outgoing);
        }
    }

    /// Takes what came, and hands over what it says.
    ///
    /// # Errors
    ///
    /// When it is not TLS, or not whom it should be.
    pub(super) fn receive(&mut self, mut bytes: &[u8], mut plain: impl FnMut(&[u8])) -> Result<(), Error> {
        while !bytes.is_empty() {
            let read = self.connection.read_tls(&mut bytes).map_err(|error| Error::General(error.to_string()))?;
            self.connection.process_new_packets()?;
            let mut buffer = [0; 4096];
            loop {
                match self.connection.reader().read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => plain(&buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(Error::General(error.to_string())),
                }
            }
            if read == 0 {
                // It has said good-bye, and what follows means nothing.
                break;
            }
        }
        Ok(())
    }
}

/// Believes any certificate, but not that somebody has a key who does not have it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
