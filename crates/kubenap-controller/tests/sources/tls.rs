//! A server over TLS, with a certificate of an authority of one's own: asked where that is named, refused where it is not.
#![expect(clippy::unwrap_used, reason = "a harness that breaks should stop its test")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_controller::activity::{Ask, Credentials, SourceError, SourceSpec, build};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::stage::{target, traefik};
use crate::stand_in::{World, cluster, serve};

const START: f64 = 1_700_000_000.0;

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The stand-in for Prometheus behind TLS, with a certificate of this authority for this name.
async fn behind_tls(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> u16 {
    let mut world = World { now: START, ..World::default() };
    world.proxies.insert("a".to_owned(), traefik(START - 3600.0));
    let plain = serve(Arc::new(Mutex::new(world))).await;
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate goes away here.
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(("127.0.0.1", plain)).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut outer, &mut inner).await);
            });
        }
    });
    port
}

async fn ask(port: u16, ca_file: Option<&Path>) -> Result<(), SourceError> {
    let mut settings = json!({"kind": "prometheus", "url": format!("https://127.0.0.1:{port}")});
    if let Some(path) = ca_file {
        settings["caFile"] = json!(path);
    }
    let spec = SourceSpec::read("main", settings).unwrap();
    let client = cluster(Arc::default(), 1);
    let source = build(&[spec], &Credentials::default(), &client)?.remove(0);
    let targets = [target("shop", "web")].into();
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    source.poll(&Ask { now, targets, history: Duration::from_mins(10) }).await.map(drop)
}

fn written(folder: &TempDir, name: &str, authority: &CertifiedIssuer<'static, KeyPair>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, authority.pem()).unwrap();
    path
}

#[tokio::test]
async fn a_certificate_of_one_s_own_authority_is_trusted_where_that_is_named() {
    let (own, other) = (authority("own.example"), authority("other.example"));
    let folder = TempDir::new().unwrap();
    let (own_file, other_file) = (written(&folder, "own.pem", &own), written(&folder, "other.pem", &other));
    let port = behind_tls(&own, "127.0.0.1").await;
    ask(port, Some(&own_file)).await.unwrap();
    for wrong in [Some(other_file.as_path()), None] {
        let error = ask(port, wrong).await.unwrap_err();
        assert!(matches!(error, SourceError::Certificate { .. }), "{error:?}");
        let told = error.to_string();
        assert!(
            told.starts_with(&format!("the certificate of https://127.0.0.1:{port} is not trusted: ")),
            "{told}"
        );
        assert!(told.contains("hint: name the file of its authority with caFile"), "{told}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let own = authority("own.example");
    let folder = TempDir::new().unwrap();
    let file = written(&folder, "own.pem", &own);
    let port = behind_tls(&own, "elsewhere.example").await;
    let error = ask(port, Some(&file)).await.unwrap_err();
    assert!(matches!(error, SourceError::Certificate { .. }), "{error:?}");
}
