//! What layers leave with a request for those behind them.

use std::any::Any;
use std::fmt;

/// Values by their type, one of each: what a layer leaves with a [`Request`](crate::Request) for the handler. They are
/// dropped when the request is answered.
///
/// ```
/// use handover::{Next, Request, Response, Router};
///
/// struct Account(u64);
///
/// let router = Router::new()
///     .get("/", |request: &mut Request| request.extensions().get::<Account>().map(|account| account.0.to_string()))
///     .layer(|request: &mut Request, next: Next<'_>| -> Response {
///         request.extensions_mut().insert(Account(7));
///         next.run(request)
///     });
/// assert_eq!(handover::test::Client::new(router).get("/").send().text(), "7");
/// ```
#[derive(Default)]
pub struct Extensions(Vec<Box<dyn Any + Send>>);

impl Extensions {
    /// Keeps a value, and answers the one of its type that was there before.
    ///
    /// ```
    /// let mut extensions = handover::Extensions::default();
    /// assert_eq!((extensions.insert(1_u8), extensions.insert(2_u8)), (None, Some(1)));
    /// ```
    pub fn insert<T: Send + 'static>(&mut self, value: T) -> Option<T> {
        let before = self.remove();
        self.0.push(Box::new(value));
        before
    }

    /// The value of that type; see the example [above](Extensions).
    pub fn get<T: Send + 'static>(&self) -> Option<&T> {
        self.0.iter().find_map(|value| value.downcast_ref())
    }

    /// The value of that type, to be changed.
    ///
    /// ```
    /// let mut extensions = handover::Extensions::default();
    /// extensions.insert(vec!["a"]);
    /// extensions.get_mut::<Vec<&str>>().expect("one").push("b");
    /// assert_eq!(extensions.remove::<Vec<&str>>(), Some(vec!["a", "b"]));
    /// ```
    pub fn get_mut<T: Send + 'static>(&mut self) -> Option<&mut T> {
        self.0.iter_mut().find_map(|value| value.downcast_mut())
    }

    /// Takes the value of that type out; see [`get_mut`](Extensions::get_mut).
    pub fn remove<T: Send + 'static>(&mut self) -> Option<T> {
        let at = self.0.iter().position(|value| value.is::<T>())?;
        self.0.swap_remove(at).downcast().ok().map(|value| *value)
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.0.len())
    }
}
