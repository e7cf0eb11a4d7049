//! Whether the other end of a TCP connection has all that was sent: as Linux says in /proc/net/tcp (proc(5)).

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Result};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until all is acknowledged. An error where it never will be: the other end is gone.
pub(super) fn wait_until_acknowledged(tcp: &TcpStream, within: Duration) -> Result<()> {
    let inode = rustix::fs::fstat(tcp)?.st_ino;
    let deadline = Instant::now() + within;
    loop {
        if let Some(error) = tcp.take_error()? {
            return Err(error);
        }
        match unacknowledged(inode)? {
            Some(0) => return Ok(()),
            Some(_) if Instant::now() < deadline => sleep(LOOK_EVERY),
            Some(_) => return Err(ErrorKind::TimedOut.into()),
            None => return Err(ErrorKind::ConnectionReset.into()),
        }
    }
}

/// Bytes that a socket has sent, or is still to send, and the other end has not acknowledged. None where it has no connection any more.
fn unacknowledged(inode: u64) -> Result<Option<u64>> {
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let table = match std::fs::File::open(table) {
            // A machine without IPv6 has one of them.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened?,
        };
        for line in BufReader::new(table).lines().skip(1) {
            let line = line?;
            let found = row(&line).ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("no row: {line:?}")))?;
            if found.0 == inode {
                return Ok(Some(found.1));
            }
        }
    }
    Ok(None)
}

/// Inode and length of the queue of a row: `sl local remote st tx:rx tr:when retrnsmt uid timeout inode …`
fn row(line: &str) -> Option<(u64, u64)> {
    let mut columns = line.split_ascii_whitespace().skip(4);
    let (sent, _) = columns.next()?.split_once(':')?;
    Some((columns.nth(4)?.parse().ok()?, u64::from_str_radix(sent, 16).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_row_says_how_much_is_on_its_way() {
        let line =
            "   1: 0100007F:A2B3 0200007F:1992 08 0000001F:00000000 01:00000014 00000000     0        0 4242 3 0";
        assert_eq!(row(line), Some((4242, 31)));
        assert_eq!(row("1: 0100007F:A2B3"), None);
    }

    #[test]
    fn what_the_other_end_has_is_acknowledged_and_after_it_is_gone_nothing_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let limit = Duration::from_secs(10);
        let (mut client, server) = connect();
        client.write_all(b"something").unwrap();
        wait_until_acknowledged(&client, limit).unwrap();
        // It ends before it is sent anything, and so without an error.
        drop(server);
        let (mut client, server) = connect();
        drop(server);
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        client.write_all(b"something").unwrap();
        wait_until_acknowledged(&client, limit).unwrap_err();
    }
}
