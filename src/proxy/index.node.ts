/** The public names of the proxy that need node:http or node:net. */

export type { HttpHandlers } from './http-server.node.ts';
export { httpServerOptions, maxHttpHeaderSize, serveRequests } from './http-server.node.ts';
export type { ProxyOptions, ProxyOutcome } from './proxy-http.node.ts';
export { answerError, proxyHttp, proxyUpgrade } from './proxy-http.node.ts';
export type { ServeHttpOptions } from './serve-http.node.ts';
export { serveHttp } from './serve-http.node.ts';
export type { ServiceTarget } from './service-connections.node.ts';
export { ServiceConnections } from './service-connections.node.ts';
export { mapLocations } from './service-location.node.ts';
export type { ForwardTcpOptions, ServeTcpOptions } from './tcp.node.ts';
export { forwardTcp, serveTcp, tcpServerOptions } from './tcp.node.ts';
