# SPDX-License-Identifier: Apache-2.0
# Debian 13 or newer, for a librdkafka that does not spin during transactions.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
      g++ cmake ninja-build pkg-config libpq-dev libpqxx-dev librdkafka-dev libspdlog-dev libtomlplusplus-dev \
       nlohmann-json3-dev libcli11-dev \
      libcurl4-openssl-dev libssl-dev
COPY . /src
WORKDIR /src
RUN cmake --preset release -DOUTBOX_BUILD_EXAMPLES=OFF && cmake --build --preset release \
    && cmake --install build/release --prefix /out --strip
# Exactly the packages of the libraries that the program is linked with.
RUN ldd /out/bin/outbox-relay | awk '$3 ~ /^\// { print $3 }' | xargs -n 1 readlink -f | sed 's|^/lib|/usr/lib|' | \
      xargs dpkg -S | cut -d : -f 1 | sort -u >/out/packages

FROM ${BASE}
RUN --mount=type=bind,from=build,source=/out,target=/out \
      apt-get update && \
      DEBIAN_FRONTEND=noninteractive xargs apt-get install -qy --no-install-recommends ca-certificates </out/packages && \
      rm -rf /var/lib/apt/lists/* && cp /out/bin/outbox-relay /usr/bin/ && outbox-relay --help >/dev/null
COPY LICENSE config/relay.toml /usr/share/doc/outbox-relay/
USER 65532:65532
# SIGTERM drains: the batch in flight is finished, and a standby takes over at once. There is no health check: a process
# that is up says nothing about progress; ask `outbox-relay status`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["outbox-relay"]
CMD ["run"]
