//! A toy kube-proxy: the Services' addresses lead to their endpoints, and refuse when there are none.
use crate::Shared;
use crate::net::backend;
use crate::net::endpoints::endpoints;
use crate::store::{Store, object};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A port of a Service, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ServicePort {
    namespace: String,
    service: String,
    port: String,
}

/// How long a connection to an endpoint may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Keeps one listener for each port of each Service that has somewhere to go.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.changes();
    let mut open: BTreeMap<(Ipv4Addr, u16), (ServicePort, DropGuard)> = BTreeMap::new();
    loop {
        changes.mark_seen();
        let wanted = wanted(&shared.store());
        open.retain(|address, (port, _)| wanted.get(address) == Some(port));
        for (address, port) in wanted {
            if open.contains_key(&address) {
                continue;
            }
            // A port that somebody else has stays closed until the next change.
            if let Ok(listener) = backend::bind(address.0, address.1) {
                let end = CancellationToken::new();
                tokio::spawn(accept(listener, port.clone(), Arc::clone(&shared), end.clone()));
                open.insert(address, (port, end.drop_guard()));
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = changes.changed() => {}
        }
    }
}

fn wanted(store: &Store) -> BTreeMap<(Ipv4Addr, u16), ServicePort> {
    let mut wanted = BTreeMap::new();
    for (key, service) in store.all("services", None) {
        let Some(address) = service["spec"]["clusterIP"].as_str().and_then(|text| text.parse().ok()) else {
            continue;
        };
        for port in object::list(&service["spec"]["ports"]) {
            let Some(number) = port["port"].as_u64().and_then(|number| u16::try_from(number).ok()) else {
                continue;
            };
            let name = port["name"].as_str().unwrap_or("");
            if endpoints(store, &key.namespace, &key.name, name).usable().is_empty() {
                continue;
            }
            let port = ServicePort {
                namespace: key.namespace.clone(),
                service: key.name.clone(),
                port: name.to_owned(),
            };
            wanted.insert((address, number), port);
        }
    }
    wanted
}

async fn accept(listener: TcpListener, port: ServicePort, shared: Arc<Shared>, end: CancellationToken) {
    loop {
        let stream = tokio::select! {
            biased;
            () = end.cancelled() => return,
            stream = backend::next(&listener) => stream,
        };
        if let Some(address) = choose(&shared, &port) {
            tokio::spawn(forward(stream, address));
        }
    }
}

fn choose(shared: &Shared, port: &ServicePort) -> Option<SocketAddr> {
    let mut store = shared.store();
    let found = endpoints(&store, &port.namespace, &port.service, &port.port);
    store.random.choose(found.usable()).copied()
}

async fn forward(mut stream: TcpStream, address: SocketAddr) {
    if let Ok(Ok(mut upstream)) = timeout(CONNECT, TcpStream::connect(address)).await {
        // Either side may break off; the other one is then closed too.
        drop(copy_bidirectional(&mut stream, &mut upstream).await);
    }
}
