//! What can be wrong with a backend.

/// Why a check has failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing came, or not all of it.
    #[error("no answer in time")]
    Silent,
    /// Nobody listens there.
    #[error("refused")]
    Refused,
    /// The connection was broken off.
    #[error("reset")]
    Reset,
    /// The connection ended before the answer did.
    #[error("the answer was cut off")]
    CutOff,
    /// What came is not HTTP.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// There was no end to the head of HTTP's answer.
    #[error("the answer's head is too long")]
    HeadTooLong,
    /// HTTP's status is not one of those that are right.
    #[error("status {0}")]
    Status(u16),
    /// What is expected is not in the answer, or not where it is looked for.
    #[error("the answer is not what is expected")]
    Unexpected,
    /// TLS does not come to an agreement.
    #[error("TLS: {0}")]
    Tls(String),
    /// There is no address to ask from, of the family of the backend's.
    #[error("there is no address to check from: add one of its family to probe_addresses")]
    NoAddress,
    /// Too many of the clients' connections have failed.
    #[error("{failed} of {begun} connections failed")]
    Traffic {
        /// How many.
        failed: u64,
        /// Of so many that began.
        begun: u64,
    },
}
