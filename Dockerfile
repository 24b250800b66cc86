# The image holds one static binary and nothing else.
#
# With a registry:              docker build -t sense-orchestrator .
# From a binary that is there:  docker build -t sense-orchestrator -f Dockerfile --target prebuilt FOLDER

FROM scratch AS runtime
HEALTHCHECK --interval=30s --timeout=15s --start-period=10s CMD ["/sense-orchestrator", "health"]
ENTRYPOINT ["/sense-orchestrator"]

# A builder without BuildKit builds every stage on its way: this one is the first, so that it needs no registry, and it
# also finds a file to copy where there is no binary, so that it is not in the way of the last.
FROM runtime AS prebuilt
COPY Cargo.toml* sense-orchestrator* /

FROM rust:1.95-slim AS build
WORKDIR /src
COPY . .
RUN cargo static && cp target/*/release/sense-orchestrator /sense-orchestrator

FROM runtime
COPY --from=build /sense-orchestrator /sense-orchestrator
