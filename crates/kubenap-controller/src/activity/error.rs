//! What can go wrong with a source, said without any credential.

use std::time::Duration;

/// Why a source said nothing at all. `at` is an address without user, password and query.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection.
    #[error(
        "cannot connect to {at}: {cause}; hint: check the address, and that a NetworkPolicy lets KubeNap reach it"
    )]
    Connect {
        /// Where to.
        at: String,
        /// What the network said.
        cause: String,
    },
    /// The deadline passed.
    #[error("no complete answer from {at} within {}s", deadline.as_secs())]
    Timeout {
        /// From where.
        at: String,
        /// The deadline.
        deadline: Duration,
    },
    /// An HTTP status other than 200.
    #[error("{at} answered status {status}{}", hint(*status))]
    Status {
        /// Who answered.
        at: String,
        /// The status.
        status: u16,
    },
    /// A redirect, which is never followed: it could carry credentials away.
    #[error(
        "{at} answered with a redirect ({status}), which is not followed; hint: give the address it leads to"
    )]
    Redirect {
        /// Who answered.
        at: String,
        /// The status.
        status: u16,
    },
    /// More bytes than any sane answer has.
    #[error("the answer of {at} is larger than {limit} bytes")]
    TooLarge {
        /// Who answered.
        at: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection broke in the middle of the answer.
    #[error("the answer of {at} ended early: {cause}")]
    Broken {
        /// Who answered.
        at: String,
        /// What the network said.
        cause: String,
    },
    /// An answer that is not what was asked for, such as a login page.
    #[error("the answer of {at} is not understood: {why}")]
    NotUnderstood {
        /// Who answered.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server understood, and refused.
    #[error("{at} answered with the error `{kind}`: {text}")]
    Api {
        /// Who answered.
        at: String,
        /// The kind of error, by the server's name for it.
        kind: String,
        /// The server's own words, shortened.
        text: String,
    },
    /// The server has no data of any proxy or app.
    #[error("{at} has no live target of a known proxy; hint: let it collect the /metrics of your proxy")]
    NothingScraped {
        /// Who answered.
        at: String,
    },
    /// No proxy was found in the cluster.
    #[error(
        "no ready pod of a known proxy was found; hint: give the address with `--source ingress=http://HOST:PORT/metrics`"
    )]
    NoProxy,
    /// The pods of the proxies could not be listed.
    #[error(
        "cannot list pods to find the ingress: {cause}; hint: KubeNap's role needs `list` on pods in all namespaces"
    )]
    Pods {
        /// What the API server said.
        cause: String,
    },
    /// A file with a credential could not be used.
    #[error("cannot use the credential file {path}: {cause}")]
    Credential {
        /// Which file.
        path: String,
        /// Why not.
        cause: String,
    },
    /// A server that wants to be asked less often.
    #[error("{at} wants to be asked less often; it is asked again in {}s", wait.as_secs())]
    Limited {
        /// Who answered.
        at: String,
        /// How long it is left alone.
        wait: Duration,
    },
    /// None of the files can be read.
    #[error("{why}; hint: mount the folder of the log into KubeNap's pod, and not the file alone")]
    Files {
        /// What the system said of the first of them.
        why: String,
    },
    /// No container whose log could be read.
    #[error(
        "no container of a pod with the labels {labels} runs; hint: `kubectl get pods -A -l '{labels}'` shows them"
    )]
    NoLogs {
        /// The labels.
        labels: String,
    },
    /// None of the containers' logs can be read.
    #[error(
        "{why}; hint: KubeNap's role needs `get` on pods/log, which the chart grants where a source is logs=pods:…"
    )]
    PodLogs {
        /// What the API server said of the first of them.
        why: String,
    },
    /// A server whose certificate is not to be trusted.
    #[error(
        "the certificate of {at} is not trusted: {cause}; hint: name the file of its authority with caFile, and the host as the certificate names it"
    )]
    Certificate {
        /// Where to.
        at: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A source that cannot be asked about the past.
    #[error(
        "the source `{name}` keeps no history; accepted: a source of kind prometheus or influxdb; hint: name one with --source"
    )]
    NoPast {
        /// Its name.
        name: String,
    },
    /// A bug in the source.
    #[error("the source stopped unexpectedly; this is a bug in KubeNap")]
    Crashed,
}

/// Why a `--source` is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name that no source has.
    #[error("`{given}` is not a source; accepted: {}", super::spec::accepted())]
    Unknown {
        /// What was given.
        given: String,
    },
    /// A name that no source has, where the config file has some.
    #[error(
        "`{given}` is not a source; in the config file are: {names}; accepted: {}",
        super::spec::accepted()
    )]
    NotInFile {
        /// What was given.
        given: String,
        /// The names in the file.
        names: String,
    },
    /// A source whose short form lacks something.
    #[error("the source `{name}` {what}")]
    Incomplete {
        /// Its name.
        name: String,
        /// What is wrong, and what is accepted.
        what: String,
    },
    /// A source that needs an address.
    #[error("the source `{name}` needs an address: {name}=http://HOST:PORT")]
    NoUrl {
        /// Its name.
        name: String,
    },
    /// An address that is not one.
    #[error(
        "the source `{name}` has an address that is not understood: {why}; accepted: http://HOST[:PORT][/PATH] or https://…"
    )]
    BadUrl {
        /// The source's name.
        name: String,
        /// What is wrong with it; the address itself may hold a password.
        why: String,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; hint: it wants other credentials",
        404 => "; hint: check the path of the address",
        503 => "; hint: it may still be starting",
        _ => "",
    }
}
