//! A TCP proxy that loses a reply: it passes everything on, until a request of some bytes goes by; from then on it
//! keeps what the server says to itself, until it is told to cut all connections. Later connections pass again.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where the proxy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was met yet.
    Waiting,
    /// The request went by: replies are kept back.
    Mute,
    /// The connections of then are cut; new ones pass.
    Cut,
}

/// A running proxy.
#[derive(Debug)]
pub struct Cut {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    server: JoinHandle<()>,
}

impl Cut {
    /// A proxy to `target` (`host:port`) that loses the reply to the first request that holds `marker`.
    pub async fn start(target: String, marker: &'static [u8]) -> std::io::Result<Cut> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State::Waiting));
        let shared = state.clone();
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                tokio::spawn(pass(client, server, marker, shared.clone()));
            }
        });
        Ok(Cut { address, state, server })
    }

    /// Cuts, once the request went by and `done` holds.
    pub async fn when(&self, done: impl Future<Output = bool>) -> bool {
        let met = self.state.subscribe().wait_for(|state| *state == State::Mute).await.is_ok();
        let done = met && done.await;
        self.state.send_replace(State::Cut);
        done
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, marker: &'static [u8], state: Arc<watch::Sender<State>>) {
    let is_late = *state.borrow() == State::Cut;
    let mut seen = state.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cut = async {
        match is_late {
            true => std::future::pending().await,
            false => seen.wait_for(|state| *state == State::Cut).await.is_ok(),
        }
    };
    tokio::select! {
        _ = forth(from_client, to_server, marker, &state) => (),
        _ = back(from_server, to_client, is_late, &state) => (),
        _ = cut => (),
    }
}

/// Requests; the marker may lie across two reads.
async fn forth(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, marker: &[u8], state: &watch::Sender<State>) {
    let (mut buffer, mut tail) = (vec![0; 64 << 10], Vec::new());
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..read]);
        if tail.windows(marker.len()).any(|window| window == marker) {
            state.send_if_modified(|state| {
                let first = *state == State::Waiting;
                if first {
                    *state = State::Mute;
                }
                first
            });
        }
        tail.drain(..tail.len().saturating_sub(marker.len() - 1));
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Replies.
async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_late: bool, state: &watch::Sender<State>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let keeps = !is_late && *state.borrow() != State::Waiting;
        if !keeps && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
