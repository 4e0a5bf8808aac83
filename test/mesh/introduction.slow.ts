import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import type { Engine, PeerConnection } from '@cocoon-mesh/mesh';
import type { Carrier } from '@cocoon-mesh/mesh/carrier.ts';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import { weriftEngine } from '@cocoon-mesh/mesh/engines/werift.node.ts';
import type { ProvenLink } from '@cocoon-mesh/mesh/introduction.ts';
import { Introduction } from '@cocoon-mesh/mesh/introduction.ts';
import type { Hello, MembershipProof, SignalPayload, SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  generateSigningKey,
  memberRights,
  randomBytes,
  sessionVersions,
  signDeviceRecord,
  signMembership,
  systemClock,
  toBase64Url,
  toMeshError,
  verifyDeviceRecord,
} from '@cocoon-mesh/protocol';
import { newOwner, standingOf } from './two-peers.ts';

const engines: readonly (readonly [string, () => Promise<Engine>])[] = [
  ['libdatachannel', () => libdatachannelEngine()],
  ['werift', () => weriftEngine()],
];

interface Device {
  readonly key: SigningKey;
  readonly membership: MembershipProof;
  readonly record: string;
}

type Send = (payload: SignalPayload) => void;

/** What one side sends goes through here to the other. */
interface Between {
  fromDialler(payload: SignalPayload): void;
  fromListener(payload: SignalPayload): void;
}

/** Made with the ways to the two sides. */
type BetweenThem = (toDialler: Send, toListener: Send) => Between;

const straight: BetweenThem = (toDialler, toListener) => ({
  fromDialler: toListener,
  fromListener: toDialler,
});

for (const [name, load] of engines) {
  describe(`an introduction (${name})`, { timeout: 60_000 }, () => {
    let engine: Engine;
    let anna: Device;
    let ben: Device;

    before(async () => {
      engine = await load();
      const owner = await newOwner();
      const device = async (called: string): Promise<Device> => {
        const key = await generateSigningKey();
        const now = Math.floor(Date.now() / 1000);
        return {
          key,
          membership: await signMembership(owner, {
            peerId: key.peerId,
            serial: 1,
            rights: memberRights,
            now,
          }),
          record: await signDeviceRecord(key, {
            kind: 'cocoon',
            name: called,
            seq: 1,
            services: [],
            capabilities: [],
            iat: now,
          }),
        };
      };
      [anna, ben] = await Promise.all([device('anna'), device('ben')]);
    });

    /** Anna dials Ben; says what each side comes to, and closes it. */
    async function meet(
      options: {
        readonly tickets?: readonly [string, string];
        readonly between?: BetweenThem;
        readonly versions?: readonly string[];
        /** What Ben says to whoever shows a valid HELLO. */
        readonly welcome?: () => void;
      } = {},
    ): Promise<readonly [string, string]> {
      const [first, second] = options.tickets ?? ['one ticket', 'one ticket'];
      const between: Between = (options.between ?? straight)(
        (payload) => dialler.receive(payload),
        (payload) => listener.receive(payload),
      );
      const hello = (device: Device, versions: readonly string[] = sessionVersions): Promise<Hello> =>
        Promise.resolve({
          versions: [...versions],
          carriers: ['webrtc'],
          engine: engine.name,
          instance: toBase64Url(randomBytes(16)),
          membership: device.membership,
          record: device.record,
          revocations: [],
          max_streams: 16,
        });
      const judge = async (peerId: string, theirs: Hello) => ({
        record: await verifyDeviceRecord(theirs.record, peerId),
        standing: await standingOf(peerId, theirs.membership),
      });
      const common = { engine, iceServers: [], clock: systemClock };
      const listener: Introduction = new Introduction({
        ...common,
        key: ben.key,
        peerId: anna.key.peerId,
        role: 'listener',
        ticket: second,
        sendSignal: (payload) => between.fromListener(payload),
        hello: () => hello(ben, options.versions),
        judge: async (theirs) => {
          options.welcome?.();
          return judge(anna.key.peerId, theirs);
        },
      });
      const dialler: Introduction = new Introduction({
        ...common,
        key: anna.key,
        peerId: ben.key.peerId,
        role: 'dialler',
        ticket: first,
        sendSignal: (payload) => between.fromDialler(payload),
        hello: () => hello(anna),
        judge: (theirs) => judge(ben.key.peerId, theirs),
      });
      const links: ProvenLink[] = [];
      const outcome = async (introduction: Introduction): Promise<string> => {
        try {
          links.push(await introduction.run());
          return 'ok';
        } catch (thrown) {
          return toMeshError(thrown).code;
        }
      };
      const outcomes = await Promise.all([outcome(dialler), outcome(listener)]);
      await Promise.all(links.map(({ connection }) => connection.close()));
      return outcomes;
    }

    test('makes a proven link between the two that it names', async () => {
      assert.deepEqual(await meet(), ['ok', 'ok']);
    });

    test('is tied to its ticket: two sides that were shown different ones do not meet', async () => {
      for (const outcome of await meet({ tickets: ['one ticket', 'another ticket'] }))
        assert.equal(outcome, 'proof_failed');
    });

    test('is tied to the connection: a relay that ends DTLS on both sides and passes everything on is refused', async () => {
      const relay = new Relay(engine);
      const outcomes = await meet({ between: relay.between });
      assert.ok(relay.passed > 0, 'nothing went through the relay');
      await relay.close();
      for (const outcome of outcomes) assert.equal(outcome, 'proof_failed');
    });

    test('ends when one side does not welcome what the HELLO of the other says', async () => {
      const refuse = (): void => {
        throw new MeshError('denied');
      };
      const [, listener] = await meet({ welcome: refuse });
      assert.equal(listener, 'denied');
    });

    test('ends when the two speak no common version', async () => {
      const [dialler] = await meet({ versions: ['cocoon/session/99'] });
      assert.equal(dialler, 'version_mismatch');
    });
  });
}

/** Two connections of its own, one towards each side, and every message handed from one to the other. */
class Relay {
  passed = 0;
  readonly #engine: Engine;
  readonly #connections: PeerConnection[] = [];

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  readonly between: BetweenThem = (toDialler, toListener) => {
    const near = this.#connect(toDialler);
    const far = this.#connect(toListener);
    return {
      fromDialler: (payload) => {
        if (payload.kind === 'candidate') near.addCandidate(payload.candidate);
        if (payload.kind !== 'offer') return;
        void near.acceptOffer(payload.sdp).then((sdp) => toDialler({ kind: 'answer', sdp }));
        void far.createOffer().then((sdp) => toListener({ kind: 'offer', sdp }));
        void this.#pump(near, far);
      },
      fromListener: (payload) => {
        if (payload.kind === 'candidate') far.addCandidate(payload.candidate);
        if (payload.kind === 'answer') void far.acceptAnswer(payload.sdp);
      },
    };
  };

  async close(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }

  #connect(send: Send): PeerConnection {
    const connection = this.#engine.connect({
      iceServers: [],
      onCandidate: (candidate) => send({ kind: 'candidate', candidate }),
    });
    this.#connections.push(connection);
    return connection;
  }

  async #pump(...ends: readonly [PeerConnection, PeerConnection]): Promise<void> {
    const ended = AbortSignal.timeout(30_000);
    const [near, far] = await Promise.all([ends[0].opened(ended), ends[1].opened(ended)]);
    this.#pass(near, far);
    this.#pass(far, near);
  }

  #pass(from: Carrier, to: Carrier): void {
    from.start({
      message: (bytes) => {
        this.passed++;
        to.send(bytes.slice());
      },
      writable: () => undefined,
      closed: (reason) => to.abort(reason),
    });
  }
}
