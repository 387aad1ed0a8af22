//! The first bytes of a connection, which tell HTTP/1.1 from HTTP/2: hyper-util's server would wait for them without a limit, and
//! whether a socket is readable may be said before there is anything to read.

use std::io;
use std::io::Cursor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits until it is told, and gives the connection as if nothing had been read.
pub(super) async fn told(stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let (mut read, write) = stream.into_split();
    let first = until_told(&mut read).await?;
    Ok(join(Cursor::new(first).chain(read), write))
}

async fn until_told(read: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        if read.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first)
}
