//! Items over HTTP, in JSON: who changes something has to know a token, each answer has an id, and a reload keeps all.
//!
//! ```text
//! cargo run --release --example items -- --token secret --pid-file items.pid
//! curl -H 'Authorization: Bearer secret' --json '{"name": "bolt", "price": 2}' http://127.0.0.1:8888/items
//! ./target/release/examples/items reload --pid-file items.pid --wait
//! ```

use handover::{
    Application, IntoResponse, Json, Method, Next, Rejection, Request, Response, Router, Server, StatusCode,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode, sync::Arc, sync::Mutex, time::Duration};

#[derive(Default, Serialize, Deserialize)]
struct Store {
    items: BTreeMap<u64, Item>,
    last: u64,
    load: String,
}

#[derive(Serialize, Deserialize)]
struct Item {
    name: String,
    price: u32,
}

type Answer = Result<Response, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments = Application::new("items", env!("CARGO_PKG_VERSION"))
        .flag("token", "TOKEN", "what one has to know to change something")
        .flag("photos", "DIR", "where photos are written to [.]")
        .from_args();
    let token = arguments.value("token").map(|token| format!("Bearer {}", token.to_string_lossy()));
    let (store, photos) = (Arc::default(), arguments.value("photos").unwrap_or(".".as_ref()).into());
    let server = Server::builder().config(arguments.config()).service(routes(&store, token, photos));
    let server = server.carry_over_json(&store).background("load", move |background| {
        while background.sleep(Duration::from_secs(1)) {
            store.lock().expect("no panic").load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        }
    });
    handover::exit_code(server.build().and_then(Server::run))
}

fn routes(store: &Arc<Mutex<Store>>, token: Option<String>, photos: PathBuf) -> Router {
    let [list, add, one, remove] = [(); 4].map(|()| store.clone());
    let answered = AtomicUsize::new(0);
    Router::new()
        .layer(move |request: &mut Request, next: Next<'_>| {
            let id = format!("{}-{}", handover::generation(), answered.fetch_add(1, Relaxed));
            ([("X-Request-Id", id)], next.run(request))
        })
        .layer(move |request: &mut Request, next: Next<'_>| match request.header("Authorization") {
            _ if matches!(request.method(), Method::Get | Method::Head | Method::Options) => Ok(next.run(request)),
            said if said.is_some() && said == token.as_deref() => Ok(next.run(request)),
            _ => Err(([("WWW-Authenticate", "Bearer")], Rejection::new(401, "a token is needed"))),
        })
        .get("/items", move |_| Json(&*list.lock().expect("no panic")).into_response())
        .post("/items", move |request: &mut Request| -> Answer {
            let item: Item = request.json()?;
            let mut store = add.lock().expect("no panic");
            store.last += 1;
            let id = store.last;
            let item = Json(&*store.items.entry(id).or_insert(item));
            Ok((StatusCode(201), [("Location", format!("/items/{id}"))], item).into_response())
        })
        .get("/items/{id}", move |request: &mut Request| -> Answer {
            let id: u64 = request.param_as("id")?;
            Ok(one.lock().expect("no panic").items.get(&id).map(Json).into_response())
        })
        .delete("/items/{id}", move |request: &mut Request| -> Answer {
            let id: u64 = request.param_as("id")?;
            Ok(remove.lock().expect("no panic").items.remove(&id).map(drop).into_response())
        })
        .put("/items/{id}/photo", move |request: &mut Request| -> Answer {
            let path = photos.join(format!("{}.jpg", request.param_as::<u64>("id")?));
            Ok(fs::write(path, request.body_bytes()?)?.into_response())
        })
        .max_body(16 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover::test::{Client, RequestBuilder};

    fn known(request: RequestBuilder<'_>) -> RequestBuilder<'_> {
        request.header("Authorization", "Bearer secret")
    }

    #[test]
    fn items_are_added_shown_and_removed() {
        let client = Client::new(routes(&Arc::default(), Some("Bearer secret".into()), ".".into()));
        let bolt = Item { name: "bolt".into(), price: 2 };
        let added = known(client.post("/items")).json(&bolt).send();
        assert_eq!((added.status(), added.header("Location")), (201, Some("/items/1")));
        assert_eq!(client.get("/items/1").send().text(), r#"{"name":"bolt","price":2}"#);
        assert_eq!(client.get("/items").send().json::<Store>().items[&1].price, 2);
        assert_eq!(known(client.delete("/items/1")).send().status(), 204);
        assert_eq!(client.get("/items/1").send().status(), 404);
        assert_eq!(known(client.delete("/items/1")).send().status(), 404);
    }

    #[test]
    fn who_knows_no_token_changes_nothing_and_each_answer_has_an_id() {
        let client = Client::new(routes(&Arc::default(), None, ".".into()));
        let bolt = Item { name: "bolt".into(), price: 2 };
        for request in [client.post("/items"), known(client.post("/items"))] {
            let answer = request.json(&bolt).send();
            assert_eq!((answer.status(), answer.header("WWW-Authenticate")), (401, Some("Bearer")));
            assert!(answer.header("X-Request-Id").is_some());
        }
        assert_eq!(client.get("/items/one").send().status(), 400);
        assert_eq!(
            (client.head("/items").send().status(), client.request("OPTIONS", "/items").send().status()),
            (200, 204)
        );
        assert_eq!(client.get("/nowhere").send().header("X-Request-Id"), Some("1-5"));
    }

    #[test]
    fn a_photo_is_written_and_bounded() {
        let photos = std::env::temp_dir().join(format!("handover-items-{}", std::process::id()));
        fs::create_dir_all(&photos).expect("a directory");
        let client = Client::new(routes(&Arc::default(), Some("Bearer secret".into()), photos.clone()));
        assert_eq!(known(client.put("/items/7/photo")).body("a photo").send().status(), 204);
        assert_eq!(fs::read(photos.join("7.jpg")).expect("a photo"), b"a photo");
        assert_eq!(known(client.put("/items/..%2F7/photo")).body("a photo").send().status(), 400);
        assert_eq!(known(client.put("/items/8/photo")).body(vec![0; (16 << 20) + 1]).send().status(), 413);
        fs::remove_dir_all(&photos).expect("removed");
    }
}
