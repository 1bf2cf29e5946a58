# The service alone; PostgreSQL runs elsewhere.
#   docker build -t recsys-ingest .
#   docker run -p 8080:8080 -v spool:/var/lib/recsys-ingest \
#     -e DATABASE_URL=… -e API_KEY_HASH_SECRET=… -e EXPOSURE_HASH_SALT=… recsys-ingest

FROM rust:1.95-slim-bookworm AS build
# PostgreSQL is for the load that the program is optimised for, see .ci/dist.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make postgresql \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock rustfmt.toml clippy.toml ./
COPY src src
COPY migrations migrations
COPY benches benches
COPY fuzz fuzz
COPY crates crates
COPY kafka kafka
COPY loadtest loadtest
COPY .ci/dist .ci/dist
RUN .ci/dist && strip target/pgo/recsys-ingest

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/recsys-ingest --create-home ingest
COPY --from=build /src/target/pgo/recsys-ingest /usr/local/bin/
USER 10001
WORKDIR /var/lib/recsys-ingest
ENV INGEST_LISTEN=0.0.0.0:8080 LOG_FORMAT=json
EXPOSE 8080
# The spool. The root file system may be read-only.
VOLUME /var/lib/recsys-ingest
# The image has no HTTP client, and this is all that it would be for.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${INGEST_LISTEN##*:} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["recsys-ingest"]
CMD ["serve"]
