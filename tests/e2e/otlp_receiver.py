"""A receiver of OpenTelemetry logs, of grpcio and opentelemetry-proto: writes each record on a line before it answers.

    otlp_receiver.py ADDRESS FILE [CERTIFICATE KEY CLIENT_CA]

Every third request is refused for now, and every fourth is kept and not answered in time, once each.
"""

import json
import sys
import time
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as service_grpc


class Receiver(service_grpc.LogsServiceServicer):
    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8")
        self.requests = 0

    def Export(self, request, context):
        self.requests += 1
        if self.requests % 3 == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not\x1b[2J now")
        for resource in request.resource_logs:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    attributes = {
                        one.key: getattr(one.value, one.value.WhichOneof("value")) for one in record.attributes
                    }
                    line = {
                        "log": about["signet.log"],
                        "service": about["service.name"],
                        "index": attributes["signet.index"],
                        "act": attributes["signet.act"],
                        "event": record.event_name,
                        "time": record.time_unix_nano,
                        "severity": record.severity_number,
                        "entry": json.loads(record.body.string_value),
                    }
                    self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.requests % 4 == 0:
            time.sleep(3)
        return service.ExportLogsServiceResponse()


def main():
    address, path, *tls = sys.argv[1:]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    service_grpc.add_LogsServiceServicer_to_server(Receiver(path), server)
    if tls:
        certificate, key, authorities = (open(name, "rb").read() for name in tls)
        credentials = grpc.ssl_server_credentials([(key, certificate)], authorities, require_client_auth=True)
        server.add_secure_port(address, credentials)
    else:
        server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main()
