//! From the bytes of a request to those of its answer, as a worker goes: `engine/connection` without a connection.

use crate::api::{Body, Handler, IntoResponse, Kind, Request, RequestBody, Response};
use crate::clock::DateCache;
use crate::config::Limits;
use crate::pages;
use http1::Reject;
use http1::chunked::Decoder;
use http1::framing::BodyFraming;
use http1::head::Scanner;
use http1::response::{
    HeadOptions, LAST_CHUNK, ResponseFraming, encode_fields, encode_plain, finish_head, framing, push_chunk_size,
};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tiny_http::{Method, StatusCode};

/// The response to that request.
pub(super) fn answer(handler: &dyn Handler, limits: &Limits, input: &[u8]) -> Vec<u8> {
    let mut request = Request::empty();
    if let Err(reject) = receive(handler, limits, input, &mut request) {
        return refuse(handler, &request, reject);
    }
    let terms = request.terms();
    // What the server answers itself.
    let response = match request.path() {
        "*" => ().into_response(),
        _ => {
            let response = catch_unwind(AssertUnwindSafe(|| handler.handle(&mut request)))
                .unwrap_or_else(|_| StatusCode(500).into_response());
            request.hold_to(terms);
            pages::for_people(&request, response)
        }
    };
    send(&request, response)
}

fn receive(handler: &dyn Handler, limits: &Limits, input: &[u8], request: &mut Request) -> Result<(), Reject> {
    let length = Scanner::default().scan(input, &limits.head())?.ok_or(Reject::HeadTimeout)?;
    let (head, body) = input.split_at(length);
    request.parse(head, &limits.head(), Some(SocketAddr::from(([127, 0, 0, 1], 50_000))))?;
    let (framing, _) = request.expected_body()?;
    let limit = handler.body_limit(request).unwrap_or(limits.body_size);
    let body = match framing {
        BodyFraming::None => return Ok(()),
        BodyFraming::Length(length) if length > limit => return Err(Reject::BodyTooLarge),
        BodyFraming::Length(length) => {
            let whole = usize::try_from(length).ok().and_then(|length| body.get(..length));
            whole.ok_or(Reject::BodyTimeout)?.to_vec()
        }
        BodyFraming::Chunked => decode(body, limit)?,
    };
    let length = body.len() as u64;
    request.set_body(RequestBody::buffered(body), Some(length));
    Ok(())
}

fn decode(mut input: &[u8], limit: u64) -> Result<Vec<u8>, Reject> {
    let (mut decoder, mut body) = (Decoder::default(), Vec::new());
    loop {
        let step = decoder.decode(input)?;
        body.extend_from_slice(&input[step.data]);
        if body.len() as u64 > limit {
            return Err(Reject::BodyTooLarge);
        }
        match (step.done, step.consumed) {
            (true, _) => return Ok(body),
            (false, 0) => return Err(Reject::BodyTimeout),
            (false, consumed) => input = &input[consumed..],
        }
    }
}

fn refuse(handler: &dyn Handler, request: &Request, reject: Reject) -> Vec<u8> {
    let traced = reject == Reject::MethodNotAllowed && *request.method() == Method::Trace;
    let allow = if traced { handler.allow(request) } else { None };
    let own = allow.as_ref().map(|allow| [("Allow", allow.as_str())]);
    let mut out = Vec::new();
    encode_plain(&mut out, reject.status(), reject.name(), own.as_ref().map_or(reject.fields(), |own| own), &date());
    out
}

fn date() -> Vec<u8> {
    DateCache::new().field().to_vec()
}

fn send(request: &Request, response: Response) -> Vec<u8> {
    let (mut out, status) = (Vec::new(), response.status_code());
    let (is_head, minor) = (*request.method() == Method::Head, request.head().0.minor);
    let said = match encode_fields(&mut out, status, response.headers(), &date()) {
        Ok(said) => said,
        Err(_) if is_of_a_server(&response.into_reader()) => {
            panic!("a WebSocket needs a server: handover::test::Server")
        }
        Err(_) => return send(request, StatusCode(500).into_response()),
    };
    let body: Body = response.into_reader();
    body.push_fields(&mut out, said);
    let framing = framing(status.0, body.len(), minor);
    finish_head(&mut out, &HeadOptions { framing, keep_alive: !body.close, client_minor: minor });
    if is_head || status.0 == 205 || framing == ResponseFraming::None {
        return out;
    }
    assert!(!is_of_a_server(&body), "push needs a server: handover::test::Server");
    let (content, is_complete) = content(body);
    match framing {
        ResponseFraming::Chunked => {
            if !content.is_empty() {
                push_chunk_size(&mut out, content.len());
                out.extend_from_slice(&content);
                out.extend_from_slice(b"\r\n");
            }
            if is_complete {
                out.extend_from_slice(LAST_CHUNK);
            }
        }
        _ => out.extend_from_slice(&content),
    }
    out
}

/// Whether somebody has to be connected for it.
fn is_of_a_server(body: &Body) -> bool {
    matches!(body.kind, Kind::Subscription(_) | Kind::Conversation(_) | Kind::Session(_) | Kind::Later(_))
}

/// What is sent of it, and whether that is all.
fn content(body: Body) -> (Vec<u8>, bool) {
    let (length, mut content) = (body.len(), Vec::new());
    let is_complete = match body.kind {
        Kind::Stream(push) => {
            let pushed = catch_unwind(AssertUnwindSafe(|| push(&mut content as &mut dyn Write)));
            matches!(pushed, Ok(Ok(())))
        }
        kind => {
            let mut reader = Body::from(kind).take(length.unwrap_or(u64::MAX));
            let read = catch_unwind(AssertUnwindSafe(|| reader.read_to_end(&mut content)));
            matches!(read, Ok(Ok(_))) && length.is_none_or(|length| length == content.len() as u64)
        }
    };
    (content, is_complete)
}
