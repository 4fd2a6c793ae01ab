//! One connection on a wake port.
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::crowd::Slot;
use super::door::Door;
use super::doors::Shared;

pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) door: Arc<Door>,
    pub(crate) peer: IpAddr,
}

pub(crate) async fn serve(_stream: TcpStream, _connection: Connection, _slot: Option<Slot>) {}
