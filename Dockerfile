# The image holds one static binary and nothing else.
#
# With BuildKit and a registry:    docker build -t sense-orchestrator .
# From a binary that is there:     docker build -t sense-orchestrator -f Dockerfile --target prebuilt FOLDER

FROM scratch AS runtime
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/sense-orchestrator", "health"]
ENTRYPOINT ["/sense-orchestrator"]

# First of the two, so that a builder without BuildKit, which builds every stage on its way, needs no other image.
FROM runtime AS prebuilt
COPY sense-orchestrator /sense-orchestrator

FROM rust:1.95-slim AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo static && cp target/*/release/sense-orchestrator /sense-orchestrator

FROM runtime
COPY --from=build /sense-orchestrator /sense-orchestrator
