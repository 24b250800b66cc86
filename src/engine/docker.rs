//! The adapter to the Docker Engine over bollard.
