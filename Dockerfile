# The runtime on a device: numpy, Pillow, ONNX Runtime, click and rich, and no PyTorch.
#
#   docker build -t byol-edge .
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" byol-edge self-test bundles/photos
#
# Never built with Docker: it was built and run once by buildah on x86-64, with Debian 13 and its Python 3.13 as the base.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
COPY . /source
RUN python -m venv --without-pip /opt/byol-edge \
 && pip --python /opt/byol-edge/bin/python install --no-cache-dir /source

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="byol-edge" \
      org.opencontainers.image.description="Embeds images with a bundle of byol-edge, by ONNX Runtime on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/byol-edge /opt/byol-edge
ENV PATH="/opt/byol-edge/bin:$PATH"
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /data
ENTRYPOINT ["byol-edge"]
CMD ["--help"]
