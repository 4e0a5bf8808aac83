/**
 * Every limit of the mesh, each with its unit in the name and its reason beside it.
 * Nothing here is tuned by users: these bound what the other side can make us hold or do.
 */

const KiB = 1024;
const MiB = 1024 * KiB;

export const limits = {
  // Signaling
  /** An SDP is 1 to 4 KiB; sixteen leaves room for many candidates and none for payloads. */
  maxSdpBytes: 16 * KiB,
  /** One ICE candidate line. */
  maxCandidateBytes: 1 * KiB,
  /** A device with 64 services and capabilities and its chain fits in 64 KiB. */
  maxSignalingMessageBytes: 64 * KiB,
  /** A welcome lists every device with its chain; an owner with hundreds of devices still signs in. */
  maxServerMessageBytes: 8 * MiB,
  /** Offer, answer, end, and candidates of many interfaces. A data channel it is not. */
  maxSignalsPerIntroduction: 96,
  /** An introduction is used at once or never. */
  ticketLifetimeMs: 60_000,
  /** What one device offers; a lookup and a device record carry all of them. */
  maxServices: 64,
  /** As many capabilities as services. */
  maxCapabilities: 64,
  /** ID tokens with many groups; larger ones do not fit into HTTP headers either. */
  maxOidcTokenBytes: 16 * KiB,
  /** Sign-in is two round trips. */
  signInTimeoutMs: 10_000,
  /** Routers forget silent connections after 30 s and more. */
  signalingPingMs: 10_000,
  /** Two pings missed. */
  signalingDeadMs: 25_000,

  // Tokens and chains
  /** A setup token with records, grant and key is about 1.5 KiB. */
  maxTokenBytes: 16 * KiB,
  /** Owner records after rotations; more than this many secrets did not leak. */
  maxOwnerRecords: 32,
  /** Tokens that a rotation lets live; they are named one by one, and the record must stay below 2 KiB. */
  maxKeptTokens: 16,
  /** How long a claimed chain serves until an owner device signs a membership. */
  provisionalMs: 7 * 24 * 3600_000,
  /** A browser that no cocoon renews is forgotten; tabs are closed and never come back. */
  browserMembershipMs: 30 * 24 * 3600_000,
  /** A membership whose owner rotated its secret many times. */
  maxMembershipBytes: 32 * KiB,
  /** Compact JWS. A grant of narrow rights is about 1 KiB; a hash and a signature are checked over all of it. */
  maxSignedObjectBytes: 8 * KiB,
  /** Checked one by one at every start; a household needs a handful. */
  maxRevocations: 10_000,
  /**
   * Of an owner that is not one's own, about 600 bytes each, for up to a thousand of them: a guest that revokes more
   * than this has what is beyond enforced by its own devices only.
   */
  maxForeignRevocations: 500,
  /** The newest ones, in HELLO: at 500 bytes each they leave room for two chains. The rest is asked for. */
  maxHelloRevocations: 32,
  /** Owners whose revocations one HELLO or welcome tells about. */
  maxRevocationLists: 64,
  /** One piece of a list, on a stream. */
  maxRevocationsPerMessage: 100,
  /** As many of the largest entries, and the owner's records. */
  maxRevocationMessageBytes: 1 * MiB,
  /** Of one peer at once: each holds one message. */
  maxRevocationStreams: 8,
  /** Both sides have at hand what they say; a peer that hangs keeps no stream. */
  revocationExchangeTimeoutMs: 5_000,
  /** Cocoons that one owner has been given, and owners that one cocoon has been given to. */
  maxShares: 1000,
  /** First redeemers that a peer notes for one owner: more tokens than a chain's seven days ever see. */
  maxKnownRedeemers: 10_000,
  /** Newest memberships that a peer notes for one owner, each of about 700 bytes; browsers come and go. */
  maxKnownMemberships: 1000,
  /** Names that a peer keeps for one device, its old ones included: nobody else gets them without being accepted. */
  maxPinnedNames: 16,
  /** An owner's clock may be this far ahead of ours and still count; one that is further ahead is wrong. */
  maxOwnerClockAheadMs: 24 * 3600_000,
  /** A request to sign something, and its answer with a chain in it. */
  maxOwnerMessageBytes: 64 * KiB,
  /** Signing is quick; the limit is for a device that hangs. */
  ownerRequestTimeoutMs: 5_000,
  /** Sign-in links are read off a terminal and clicked. */
  signInLinkMs: 10 * 60_000,
  /** Clocks of home devices drift; more than this is told by doctor. */
  clockSkewMs: 5 * 60_000,

  // Proof
  /** A failed binding is silent on the listener's side, so it ends by time. */
  proofTimeoutMs: 5_000,
  /** Noise XX needs about 400 bytes. */
  maxProofBytes: 4 * KiB,
  /** Chain, record and revocation head. Whole in one Noise message, which ends at 65,535 bytes. */
  maxHelloBytes: 60 * KiB,
  /** In all: each costs a handshake and a timer. */
  maxHalfOpenProofs: 64,
  /** One peer tries again while an attempt of its own still times out. */
  maxHalfOpenProofsPerPeer: 4,
  /** ICE and DTLS on a slow line, TURN included. */
  connectTimeoutMs: 15_000,
  /** Keys of a sealed carrier serve no longer than this. */
  sealRenewMs: 3600_000,
  /** Or after this many messages one way, 16 TiB at most: far below the 2^32 that one key may count. */
  sealRenewMessages: 2 ** 28,
  /** A renewal is three small messages, which may queue behind a full buffer on a slow line. */
  sealRenewTimeoutMs: 30_000,

  // Session
  /** 64 KiB data-channel messages are best on every engine; above, werift's send throws. */
  maxCarrierMessageBytes: 64 * KiB,
  /** DATA frames may fill a message; control frames never need more than a header block. */
  maxFrameBytes: 64 * KiB,
  /** Names a service or a query; heads of requests follow as data. */
  maxOpenHeaderBytes: 4 * KiB,
  /** Credit of one stream: enough for 64 MB/s at 60 ms. */
  streamWindowBytes: 4 * MiB,
  /** What a slow reader makes us hold for one peer; two streams at full speed. */
  sessionWindowBytes: 8 * MiB,
  /** What every open stream may always send, so that unread streams never block the others. */
  streamMinimumBytes: 16 * KiB,
  /** Written by the program and not yet framed, per stream; above it `write` asks to wait. */
  streamQueueBytes: 256 * KiB,
  /** A stream with no more than this waiting passes before bulk. */
  smallWriteBytes: 2 * KiB,
  /** Written but not acknowledged; a full buffer stops the sender. */
  replayBytes: 8 * MiB,
  /** Often enough that the replay buffer never fills on a good line. */
  ackEveryBytes: 256 * KiB,
  /** An acknowledgement waits this long for company. */
  ackDelayMs: 25,
  /** Opened by one side and not over. */
  maxStreams: 1024,
  /** Loopback benchmarks reach 130,000 requests a second; what costs more than that is an attack. */
  maxOpensPerSecond: 250_000,
  /** Resets are rarer than opens and cost the same. */
  maxResetsPerSecond: 20_000,
  /** An OPEN of each request, and what comes beside it. */
  maxControlFramesPerSecond: 500_000,
  /** Silence after which we ping. */
  pingAfterMs: 1_200,
  /** Silence after which the carrier is dead. */
  deadAfterMs: 4_000,
  /** How long a session without streams is kept warm. */
  idleSessionMs: 5 * 60_000,
  /** New requests to a peer whose carrier is gone. */
  openTimeoutMs: 5_000,
  /** What is queued at a close still goes out, on a slow line too. */
  closeDrainMs: 2_000,

  // Proxy
  /** 64 KiB header fields must pass; request line and the others come on top. */
  maxHttpHeadBytes: 96 * KiB,
  /** Then the client gets 504; bodies may take as long as they like. */
  responseHeadTimeoutMs: 30_000,
  /** A local port answers at once or not at all. */
  serviceConnectTimeoutMs: 5_000,
  /** `devices` shows health that is at most this old. */
  healthIntervalMs: 15_000,
  /** A service slower than this is not healthy. */
  healthTimeoutMs: 5_000,

  // Tasks
  /** A line in a list; what is longer belongs into the description. */
  maxTaskTitleLength: 500,
  maxTaskDescriptionLength: 64 * KiB,
  /** A script; a larger one belongs into a file. */
  maxTaskCommandLength: 32 * KiB,
  /** Input and output, each. Larger data is passed as files or through a service. */
  maxTaskJsonBytes: 1 * MiB,
  /** Below what a message may be nested, with room for the task around it. */
  maxTaskJsonDepth: 20,
  /** A week; what runs for ever has no limit at all. */
  maxTaskTimeoutMs: 7 * 24 * 3600_000,
  /** A task whose input and output are lists of fractions, which MessagePack makes twice as long as JSON. */
  maxTaskMessageBytes: 5 * MiB,

  // Queries
  maxQueryParamsBytes: 64 * KiB,
  /** Of one device in one answer; more is another page. */
  maxQueryRows: 1000,
  /** One row; what is larger is asked for by itself. */
  maxQueryRowBytes: 1 * MiB,
  /** Below what a message may be nested, with room for the part around the row. */
  maxQueryRowDepth: 20,
  /** One message of an answer: a row of the largest kind always fits. */
  maxQueryPartBytes: 4 * MiB,
  /** What an asker holds of one device's answer: a thousand rows of a large list. */
  maxQueryAnswerBytes: 8 * MiB,
  /** What an asker holds of all answers to one query; more devices than 32 share it. */
  maxQueryBytes: 256 * MiB,
  /** A position for each of two hundred devices. */
  maxCursorBytes: 64 * KiB,
  /** A time and an id, or an offset. */
  maxQueryPositionLength: 256,
  maxQueryTimeoutMs: 60_000,
  /** What a query takes when nobody says. */
  queryTimeoutMs: 5_000,
  /** Of one peer under way at once. */
  maxQueriesPerPeer: 64,

  // Capabilities
  /** What is read of models and their servers at once; tool schemas and long chats fit. */
  maxCapabilityJsonBytes: 4 * MiB,
  /** Schemas of tools nest. Below what a message may be nested, with room for the message around it. */
  maxCapabilityJsonDepth: 20,
  /** Numbers, texts, lists and so on: whoever reads a million of them does nothing else for a second. */
  maxCapabilityJsonValues: 500_000,
  /** Of those and their keys in a message, with what stands around them. */
  maxCapabilityMessageItems: 1_001_024,
  /** Of one message with its binary parts: 2,048 vectors of 1,536 float32, or a picture. */
  maxCapabilityMessageBytes: 16 * MiB,
  /** Each has a head and a place; what has more of them packs them. */
  maxCapabilityParts: 256,
  /** A server of models has dozens, a cloud hundreds. */
  maxCapabilityFeatures: 512,
  /** An answer of a model may take that long. */
  maxCapabilityTimeoutMs: 600_000,
  /** What a request takes when nobody says. */
  capabilityTimeoutMs: 30_000,
  /** Of one peer under way here; one more is refused. */
  maxCapabilityRequestsPerPeer: 64,
} as const;
