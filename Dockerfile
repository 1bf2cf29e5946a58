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
RUN .ci/dist

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/recsys-ingest --create-home ingest
COPY --from=build /src/target/pgo/recsys-ingest /usr/local/bin/
USER 10001
WORKDIR /var/lib/recsys-ingest
ENV INGEST_LISTEN=0.0.0.0:8080 LOG_FORMAT=json
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["recsys-ingest"]
CMD ["serve"]
