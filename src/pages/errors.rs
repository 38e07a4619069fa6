//! A page for each status that says what went wrong, for those who like HTML better than a line of text.

use super::{complete, policy};
use crate::api::{Body, Request, Response, known_header};
use http1::accept::prefers_html;
use std::ops::RangeInclusive;
use std::sync::{LazyLock, OnceLock};
use tiny_http::StatusCode;

/// The statuses that have a page.
const STATUSES: RangeInclusive<u16> = 400..=511;

/// Made when a status is answered for the first time, and then always the same bytes.
static PAGES: [OnceLock<String>; 112] = [const { OnceLock::new() }; 112];

/// All have the same style.
static POLICY: LazyLock<String> = LazyLock::new(|| policy(page(404)));

/// Gives a response that says no more than its status, as `404 Not Found`, a page for whoever likes HTML at least as well
/// as text and says so by name, as browsers do for what is shown. Everybody else keeps the text, and any other response is
/// left as it is.
///
/// Which of the two it is hangs on Accept, so both say that (RFC 9110 §12.5.5).
pub fn for_people(request: &Request, response: Response) -> Response {
    let status = response.status_code().0;
    if !STATUSES.contains(&status) {
        return response;
    }
    let mut headers = response.headers().to_vec();
    let body = response.into_reader();
    // Who has said what the text is has meant this text.
    let is_typed = headers.iter().any(|header| header.field.equiv("Content-Type"));
    if !body.is_status || is_typed {
        return body.into_response_with(status, headers);
    }
    if !headers.iter().any(|header| header.field.equiv("Vary") && header.value.as_str() == "Accept") {
        headers.push(known_header("Vary", "Accept"));
    }
    if !prefers_html(request.header_values("Accept")) {
        return body.into_response_with(status, headers);
    }
    // Of two policies both hold (CSP, level 3), and one for other pages would take this one its look. It is the stricter one.
    headers.retain(|header| !header.field.equiv("Content-Security-Policy"));
    headers.push(known_header("Content-Type", "text/html; charset=utf-8"));
    headers.push(known_header("Content-Security-Policy", &POLICY));
    let close = body.close;
    let mut body = Body::from(page(status));
    body.close = close;
    body.into_response_with(status, headers)
}

/// The page of a status in [`STATUSES`].
fn page(status: u16) -> &'static str {
    PAGES[usize::from(status - STATUSES.start())].get_or_init(|| {
        let phrase = StatusCode(status).default_reason_phrase();
        let advice = advice(status).map_or(String::new(), |advice| format!("<p>{advice}</p>\n"));
        complete(&format!(
            "{{head}}<title>{status} {phrase}</title>\n{{icon}}\n<style>{{style}}</style>\n<main>\n\
             <h1><span>{status}</span> {phrase}</h1>\n{advice}</main>\n"
        ))
    })
}

/// What it means to who reads it, and what would help.
fn advice(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => "The address or the request is malformed.",
        401 => "This is for those who have a name and a password, or a token.",
        403 => "The server may not show this.",
        404 => "There is nothing at this address. Is it spelt right?",
        405 => "This address does not take a request of that kind.",
        406 | 415 => "The server does not have this in a form that was asked for, or does not read what was sent.",
        408 => "The request took too long to arrive.",
        410 => "What was at this address has gone, and will not come back.",
        412 => "What is here has changed meanwhile. Load it again before you change it.",
        413 => "What was sent is larger than the server takes.",
        416 => "The part that was asked for lies behind the end.",
        429 => "There were too many requests. Wait a moment, then try again.",
        500 => "Something went wrong in the server; what, is in its log.",
        501 => "The server does not know how to do that.",
        502 | 504 => "What stands behind the server does not answer.",
        503 => "The server cannot answer now. Wait a moment, then try again.",
        507 => "The server has no room left for this.",
        _ => return None,
    })
}
