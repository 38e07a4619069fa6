"""sockjs-tornado as its examples broadcast; the topic comes with the query of the session's address."""

import sys

import tornado.ioloop
import tornado.web
from sockjs.tornado import SockJSConnection, SockJSRouter

topics = {}


class Subscriber(SockJSConnection):
    def on_open(self, request):
        # Arguments of a query are bytes here.
        self.topic = topics.setdefault(request.get_argument("topic").decode(), set())
        self.topic.add(self)

    def on_message(self, message):
        pass

    def on_close(self):
        self.topic.discard(self)


class Echo(SockJSConnection):
    def on_message(self, message):
        self.send(message)


class Publish(tornado.web.RequestHandler):
    def post(self, topic):
        clients = topics.get(topic, ())
        if clients:
            next(iter(clients)).broadcast(clients, self.request.body.decode())
        self.write({"subscribers": len(clients)})


class Hello(tornado.web.RequestHandler):
    def get(self):
        self.write("hello world")


# A stream that ends after 128 KiB is for old browsers; here it would measure reconnecting.
settings = {"heartbeat_delay": 15, "response_limit": 1 << 40}
router = SockJSRouter(Subscriber, "/push", settings)
echo = SockJSRouter(Echo, "/echo", settings)
application = tornado.web.Application([*router.urls, *echo.urls, (r"/publish/(.+)", Publish), (r"/hello", Hello)])
application.listen(int(sys.argv[1]), "127.0.0.1", backlog=4096)
tornado.ioloop.IOLoop.current().start()
