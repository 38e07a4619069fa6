//! An answer to a POST or an ordinary GET: where it ends, and its status.

use memchr::memmem;
use std::io;

/// Whether the connection ends with it.
pub fn closes(input: &[u8]) -> bool {
    let end = memmem::find(input, b"\r\n\r\n").unwrap_or(0);
    String::from_utf8_lossy(&input[..end]).to_ascii_lowercase().contains("\r\nconnection: close")
}

/// Status and length, when the whole of it has come.
pub fn whole(input: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let Some(end) = memmem::find(input, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
    let status = head.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status: u16 = status.ok_or_else(|| io::Error::other(format!("no answer: {head}")))?;
    let body = end + 4;
    if matches!(status, 204 | 304) {
        return Ok(Some((status, body)));
    }
    let value = |name| head.lines().find_map(|line: &str| line.strip_prefix(name).map(str::trim));
    if let Some(length) = value("content-length:") {
        let length: usize = length.parse().map_err(io::Error::other)?;
        return Ok((input.len() >= body + length).then_some((status, body + length)));
    }
    if value("transfer-encoding:") == Some("chunked") {
        let last = memmem::find(&input[body..], b"0\r\n\r\n");
        return Ok(last.map(|last| (status, body + last + 5)));
    }
    Err(io::Error::other(format!("an answer without a length: {head}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ends_where_it_ends() {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ];
        for answer in answers {
            for cut in 0..answer.len() {
                assert_eq!(super::whole(&answer[..cut]).unwrap(), None);
            }
            let two = [answer, b"HTTP/1.1"].concat();
            assert_eq!(super::whole(&two).unwrap().unwrap().1, answer.len());
        }
        assert!(super::whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
