#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fakes for providers: payments and an object store by HTTP, and a mail server. The evidence of
tests about effects.

    providers.py LOG [CERTIFICATE KEY]

Listens on free ports of 127.0.0.1 and prints them as KEY=VALUE lines, with READY last. LOG gets one
JSON line for each connection, each request and each effect, written before the answer is. With a
certificate, payments and mail are served with TLS as well. Ends with its parent.

Faults: POST /faults on the control port, a JSON list of

    {"at": "payments" | "store" | "mail", "match": TEXT, "times": N, "fault": NAME, ...}

Each is used up by the first N connections or requests that it fits: those whose key, path or
recipients contain TEXT.
"""

import asyncio
import base64
import hashlib
import json
import os
import socket
import ssl
import sys
import time
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.smtp import SMTP, AuthResult

# Of HTTP. The first group acts on a connection, before anything is known of the request.
#   refuse            closed as soon as it is accepted
#   read              closed once `bytes` of it were read
#   stall             read no further once `bytes` of it were read
#   early             answered with 201 once its head was read, and closed
# The others act on a request that was read to its end.
#   close_before      closed, nothing done
#   silent            nothing done and no answer
#   status            answered with `status` and `headers`, nothing done
#   working           under way for `seconds`, then done; meanwhile its key is in progress
#   close_after       done, closed
#   slow_after        done, answered after `seconds`
#   status_after      done, answered with `status` and `headers`
#   bytewise          done, answered byte by byte, `seconds` between
#   truncated         done, half of the answer's body, closed
#   cut_chunks        done, the answer in chunks without the last, closed
#   another           done, answered with the body of another key
#   huge              done, answered with 4 MiB
#   endless           done, answered without an end
CONNECTION_FAULTS = ("refuse", "read", "stall", "early")
# Of mail; each has a `stage`: EHLO, HELO, MAIL, RCPT, DATA or QUIT; "dot", the end of the message;
# "connect"; or "text".
#   reply             answers the stage with `line` in place of executing it
#   close             closes at the stage, nothing done; at "text" once `bytes` of the message were
#                     read
#   stall             at "text", reads no further once `bytes` of the message were read
#   close_after       takes the message over and closes
#   slow              takes the message over and answers after `seconds`
#   slow_quit         never answers QUIT


class Log:
    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8")

    def add(self, at, event, **fields):
        self.file.write(
            json.dumps({"at": at, "event": event, "time": time.time(), **fields}) + "\n"
        )
        self.file.flush()


class Faults:
    def __init__(self):
        self.waiting = []

    def take(self, at, text, connection=False, stage=None):
        for fault in self.waiting:
            of_connection = at != "mail" and fault["fault"] in CONNECTION_FAULTS
            fits = (
                fault["at"] == at and fault.get("match", "") in text and of_connection == connection
            )
            if (
                fits
                and fault["times"] > 0
                and (stage is None or fault.get("stage", stage) == stage)
            ):
                fault["times"] -= 1
                return fault
        return {"fault": "none"}


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.url = urlsplit(path)

    @property
    def key(self):
        return self.headers.get("idempotency-key", "")


class Answer:
    def __init__(self, status, body=b"", headers=None):
        self.status, self.body, self.headers = status, body, headers or {}

    def head(self, length=None):
        lines = [f"HTTP/1.1 {self.status} Status"] + [f"{n}: {v}" for n, v in self.headers.items()]
        if length != "none":
            lines.append(f"Content-Length: {len(self.body) if length is None else length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def json_answer(status, value, **headers):
    return Answer(
        status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers}
    )


class Payments:
    """Charges. A key is executed once and its first answer repeated; below /plain, keys mean
    nothing.
    """

    name = "payments"

    def __init__(self, log):
        self.log = log
        self.first = {}  # key -> (hash of the request, answer)
        self.working = set()
        self.count = 0

    def charge(self, request):
        self.count += 1
        charge = f"ch_{self.count}"
        self.log.add(
            self.name,
            "effect",
            key=request.key,
            object=charge,
            path=request.path,
            sha256=hashlib.sha256(request.body).hexdigest(),
        )
        return json_answer(201, {"id": charge, "idempotency_key": request.key})

    def refusal(self, request):
        """An answer without doing anything, or None."""
        if request.method == "GET" and request.url.path == "/charges":
            found = self.first.get(parse_qs(request.url.query).get("key", [""])[0])
            return (
                Answer(200, found[1].body)
                if found
                else json_answer(404, {"error": "no such charge"})
            )
        if request.method not in ("POST", "PUT") or request.url.path not in (
            "/charges",
            "/plain/charges",
        ):
            return json_answer(404, {"error": "no such place"})
        if request.url.path.startswith("/plain"):
            return None
        if request.key in self.working:
            return json_answer(409, {"error": "in progress"})
        if request.key in self.first:
            digest, answer = self.first[request.key]
            if digest != hashlib.sha256(request.body).digest():
                return json_answer(422, {"error": "the key was used for another request"})
            return Answer(
                answer.status, answer.body, {**answer.headers, "Idempotent-Replayed": "true"}
            )
        return None

    def do(self, request):
        answer = self.charge(request)
        if not request.url.path.startswith("/plain"):
            self.first[request.key] = (hashlib.sha256(request.body).digest(), answer)
        return answer


class Store:
    """Objects. Below /md5 it keeps no SHA-256, below /opaque its ETag is no MD5 either."""

    name = "store"

    def __init__(self, log):
        self.log = log
        self.objects = {}
        self.working = set()

    def described(self, path, request):
        body = self.objects[path]
        opaque = path.startswith("/opaque")
        etag = hashlib.sha1(body).hexdigest()[:32] if opaque else hashlib.md5(body).hexdigest()
        headers = {"ETag": f'"{etag}"'}
        if request.headers.get("x-amz-checksum-mode") == "ENABLED" and not path.startswith(
            ("/md5", "/opaque")
        ):
            headers["x-amz-checksum-sha256"] = base64.b64encode(
                hashlib.sha256(body).digest()
            ).decode()
        return headers

    def refusal(self, request):
        path = request.url.path
        if "expired" in request.url.query:
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if request.method in ("HEAD", "GET"):
            if path not in self.objects:
                return Answer(404)
            return Answer(
                200,
                self.objects[path] if request.method == "GET" else b"",
                self.described(path, request),
            )
        if request.method != "PUT":
            return Answer(405)
        if request.headers.get("if-none-match") == "*" and path in self.objects:
            return Answer(412)
        said = request.headers.get("x-amz-checksum-sha256")
        if said and said != base64.b64encode(hashlib.sha256(request.body).digest()).decode():
            return Answer(400, b"<Error><Code>BadDigest</Code></Error>")
        return None

    def do(self, request):
        path = request.url.path
        self.objects[path] = request.body
        self.log.add(
            self.name,
            "effect",
            key=path,
            object=path,
            sha256=hashlib.sha256(request.body).hexdigest(),
        )
        return Answer(200, b"", self.described(path, request))


class Closed(Exception):
    """The connection is to be closed."""


class HttpServer:
    def __init__(self, app, log, faults):
        self.app, self.log, self.faults = app, log, faults
        self.connections = 0
        self.requests = 0

    async def serve(self, reader, writer):
        self.connections += 1
        connection = self.connections
        try:
            self.log.add(self.app.name, "connection", connection=connection)
            fault = self.faults.take(self.app.name, "", connection=True)
            if fault["fault"] == "refuse":
                return
            if fault["fault"] in ("read", "stall"):
                got = await reader.readexactly(fault["bytes"]) if fault["bytes"] else b""
                self.log.add(self.app.name, "cut", connection=connection, bytes=len(got))
                await (asyncio.Event().wait() if fault["fault"] == "stall" else asyncio.sleep(0))
                return
            if fault["fault"] == "early":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(
                    json_answer(201, {"id": "ch_early"}, Connection="close").head()
                    + b'{"id": "ch_early"}'
                )
                await writer.drain()
                return
            while (request := await self.read(reader)) is not None:
                await self.answer(request, writer, connection)
        except (Closed, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def read(reader):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        except asyncio.IncompleteReadError as e:
            if e.partial:
                raise
            return None
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, path, headers, body)

    async def answer(self, request, writer, connection):
        self.requests += 1
        number = f"req_{self.requests}"
        self.log.add(
            self.app.name,
            "request",
            connection=connection,
            request_id=number,
            method=request.method,
            path=request.path,
            key=request.key or request.url.path,
            headers=request.headers,
            sha256=hashlib.sha256(request.body).hexdigest(),
        )
        fault = self.faults.take(self.app.name, request.key + " " + request.path)
        answer = await self.execute(request, fault)
        answer.headers = {**answer.headers, "Request-Id": number, "x-amz-request-id": number}
        await self.write(request, answer, writer, fault)

    async def execute(self, request, fault):
        name = fault["fault"]
        if name == "close_before":
            raise Closed
        if name == "silent":
            await asyncio.Event().wait()
        if name == "status":
            return Answer(fault["status"], fault.get("body", "").encode(), fault.get("headers"))
        answer = self.app.refusal(request)
        if answer is None:
            if name == "working":
                self.app.working.add(request.key)
                await asyncio.sleep(fault["seconds"])
                self.app.working.discard(request.key)
            answer = self.app.do(request)
        if name == "close_after":
            raise Closed
        if name == "slow_after":
            await asyncio.sleep(fault["seconds"])
        if name == "status_after":
            return Answer(fault["status"], fault.get("body", "").encode(), fault.get("headers"))
        if name == "another":
            return json_answer(201, {"id": "ch_other", "idempotency_key": "another key"})
        if name == "huge":
            return Answer(201, b" " * (4 << 20))
        return answer

    @staticmethod
    async def write(request, answer, writer, fault):
        head = request.method == "HEAD"
        name = fault["fault"]
        if name == "bytewise":
            for byte in answer.head() + answer.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(fault["seconds"])
            return
        if name == "truncated":
            writer.write(answer.head() + answer.body[: len(answer.body) // 2])
            await writer.drain()
            raise Closed
        if name == "cut_chunks":
            answer.headers["Transfer-Encoding"] = "chunked"
            writer.write(
                answer.head("none") + f"{len(answer.body):x}\r\n".encode() + answer.body + b"\r\n"
            )
            await writer.drain()
            raise Closed
        if name == "endless":
            writer.write(answer.head("none"))
            while True:
                writer.write(b"x" * 1024)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.write(answer.head() + (b"" if head else answer.body))
        await writer.drain()


class Mail:
    """The handler of aiosmtpd."""

    def __init__(self, log, faults):
        self.log, self.faults = log, faults
        self.count = 0

    def fault(self, server, stage, text):
        fault = self.faults.take("mail", text, stage=stage)
        if fault["fault"] == "close":
            server.transport.abort()
        return fault

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        fault = self.fault(server, "EHLO", hostname)
        return [fault["line"]] if fault["fault"] == "reply" else responses

    async def handle_HELO(self, server, session, envelope, hostname):
        session.host_name = hostname
        fault = self.fault(server, "HELO", hostname)
        return fault["line"] if fault["fault"] == "reply" else "250 mail.test"

    async def handle_MAIL(self, server, session, envelope, address, options):
        self.log.add("mail", "command", name="MAIL", address=address)
        fault = self.fault(server, "MAIL", address)
        if fault["fault"] == "reply":
            return fault["line"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        self.log.add("mail", "command", name="RCPT", address=address)
        fault = self.fault(server, "RCPT", address)
        if fault["fault"] == "reply":
            return fault["line"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        to = ",".join(envelope.rcpt_tos)
        content = envelope.original_content
        self.log.add(
            "mail",
            "request",
            key=to,
            sender=envelope.mail_from,
            content=content.decode("latin1"),
            user=str(session.auth_data),
            tls=session.ssl is not None,
        )
        fault = self.fault(server, "dot", to)
        if fault["fault"] == "reply":
            return fault["line"]
        if fault["fault"] != "close":
            self.count += 1
            self.log.add("mail", "effect", key=to, object=f"Q{self.count}")
        if fault["fault"] == "close_after":
            server.transport.abort()
        if fault["fault"] == "slow":
            await asyncio.sleep(fault["seconds"])
        return f"250 2.0.0 Ok: queued as Q{self.count}"

    async def handle_QUIT(self, server, session, envelope):
        if self.faults.take("mail", "", stage="QUIT")["fault"] == "slow_quit":
            await asyncio.Event().wait()
        return "221 Bye"


class MailServer(SMTP):
    """aiosmtpd, with the faults that its handler cannot place."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.event_handler.log.add("mail", "connection", tls=self.session.ssl is not None)
        self.event_handler.fault(self, "connect", "")

    async def smtp_DATA(self, arg):
        fault = self.event_handler.fault(self, "DATA", ",".join(self.envelope.rcpt_tos))
        if fault["fault"] == "reply":
            await self.push(fault["line"])
            return
        text = self.event_handler.faults.take(
            "mail", ",".join(self.envelope.rcpt_tos), stage="text"
        )
        if text["fault"] in ("close", "stall"):
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            got = await self._reader.readexactly(text["bytes"])
            self.event_handler.log.add("mail", "cut", bytes=len(got))
            await (asyncio.Event().wait() if text["fault"] == "stall" else asyncio.sleep(0))
            self.transport.abort()
            return
        await super().smtp_DATA(arg)


def authenticate(server, session, envelope, mechanism, data):
    good = data.login == b"shop" and data.password == b"secret"
    return AuthResult(success=good, handled=False, auth_data=data.login.decode() if good else None)


async def control(reader, writer, faults):
    request = await HttpServer.read(reader)
    faults.waiting.extend({"times": 1, **fault} for fault in json.loads(request.body))
    writer.write(Answer(204).head())
    await writer.drain()
    writer.close()


async def listen(name, serve, **options):
    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    print(f"{name}={server.sockets[0].getsockname()[1]}", flush=True)
    return server


async def listen_mail(name, handler, **options):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: MailServer(
            handler,
            hostname="mail.test",
            authenticator=authenticate,
            data_size_limit=1 << 28,
            loop=loop,
            **options,
        ),
        "127.0.0.1",
        0,
    )
    print(f"{name}={server.sockets[0].getsockname()[1]}", flush=True)
    return server


def black_hole():
    """Listens, accepts nothing, and its backlog is full: a connection to it gets no answer."""
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(hole.getsockname())
        fillers.append(filler)
    print(f"BLACK_HOLE={hole.getsockname()[1]}", flush=True)
    return [hole, *fillers]


async def main():
    parent = os.getppid()
    log, faults = Log(sys.argv[1]), Faults()
    payments = HttpServer(Payments(log), log, faults)
    store = HttpServer(Store(log), log, faults)
    mail = Mail(log, faults)
    kept = [
        await listen("CONTROL", lambda r, w: control(r, w, faults)),
        await listen("PAYMENTS", payments.serve),
        await listen("STORE", store.serve),
        await listen_mail("MAIL", mail),
        black_hole(),
    ]
    if len(sys.argv) > 3:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[2], sys.argv[3])
        kept.append(await listen("PAYMENTS_TLS", payments.serve, ssl=tls))
        kept.append(await listen_mail("MAIL_TLS", mail, tls_context=tls, auth_require_tls=True))
    print("READY", flush=True)
    while os.getppid() == parent and kept:
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
