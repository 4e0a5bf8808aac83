/**
 * Keys and names: an Ed25519 key signs, its public half is named by its libp2p PeerId. Built on WebCrypto, so
 * the same code runs in Node and in the browser, where keys need not be extractable.
 */

import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id';
import type { CryptoKey } from 'jose';
import type { Bytes } from './bytes.ts';
import { concat, fromBase64Url, fromHex, lengthPrefixed, toBase64Url, utf8 } from './bytes.ts';
import { MeshError } from './errors.ts';

export interface SigningKey {
  /** PeerId of the public half; owners' and one-time keys have one too, though nobody calls them by it. */
  readonly peerId: string;
  /** 32 bytes. */
  readonly publicKey: Bytes;
  readonly privateKey: CryptoKey;
  /** Raw Ed25519 (RFC 8032), 64 bytes. Callers use `signLabelled` or `signObject`. */
  sign(bytes: Uint8Array): Promise<Bytes>;
}

/**
 * Every signature outside a JWS starts with one of these, so that none can be shown in the place of another.
 * Noise's own label is `noise-libp2p-static-key:`, no prefix of these.
 */
export const SignatureLabel = {
  signIn: 'cocoon/sign-in/1',
  redeemOneTime: 'cocoon/redeem-one-time/1',
  redeemAccept: 'cocoon/redeem-accept/1',
} as const;
export type SignatureLabel = (typeof SignatureLabel)[keyof typeof SignatureLabel];

/** RFC 8410: the PKCS#8 head before a raw 32-byte Ed25519 seed. */
const pkcs8Head = fromHex('302e020100300506032b657004220420');

/** @throws MeshError key_corrupt unless `seed` is 32 bytes */
export async function signingKeyFromSeed(seed: Uint8Array): Promise<SigningKey> {
  if (seed.length !== 32) throw new MeshError('key_corrupt', 'A key has 32 bytes');
  const pkcs8 = concat(pkcs8Head, seed);
  const readable = await crypto.subtle.importKey('pkcs8', pkcs8, 'Ed25519', true, ['sign']);
  const { x } = await crypto.subtle.exportKey('jwk', readable);
  const privateKey = await crypto.subtle.importKey('pkcs8', pkcs8, 'Ed25519', false, ['sign']);
  return signingKey(privateKey, fromBase64Url(x ?? ''));
}

/** A key whose private half never leaves WebCrypto: for browsers, which can store it as it is. */
export async function generateSigningKey(): Promise<SigningKey> {
  const pair = (await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])) as {
    privateKey: CryptoKey;
    publicKey: CryptoKey;
  };
  const raw = await crypto.subtle.exportKey('raw', pair.publicKey);
  return signingKey(pair.privateKey, new Uint8Array(raw));
}

/** Wraps a stored pair. */
export function signingKey(privateKey: CryptoKey, publicKey: Bytes): SigningKey {
  return {
    peerId: peerIdOf(publicKey),
    publicKey,
    privateKey,
    async sign(bytes) {
      return new Uint8Array(await crypto.subtle.sign('Ed25519', privateKey, new Uint8Array(bytes)));
    },
  };
}

export function peerIdOf(publicKey: Uint8Array): string {
  return peerIdFromPublicKey(publicKeyFromRaw(publicKey)).toString();
}

/** The 32-byte Ed25519 key inside a PeerId. @throws MeshError bad_message for any other kind of id */
export function publicKeyOf(peerId: string): Bytes {
  try {
    const id = peerIdFromString(peerId);
    // libp2p has several texts for one id; ours are compared as texts, so only the one we write counts.
    if (id.type === 'Ed25519' && peerIdOf(id.publicKey.raw) === peerId)
      return new Uint8Array(id.publicKey.raw);
  } catch {
    // Falls through to the one error.
  }
  throw new MeshError('bad_message', 'That is not the PeerId of an Ed25519 key');
}

/** Importing is a job of its own for WebCrypto, and the same few keys come again and again. */
const imported = new Map<string, CryptoKey>();
const maxImported = 1000;

export async function importPublicKey(publicKey: Uint8Array): Promise<CryptoKey> {
  const name = toBase64Url(publicKey);
  const known = imported.get(name);
  if (known) return known;
  const key = await crypto.subtle.importKey('raw', new Uint8Array(publicKey), 'Ed25519', true, ['verify']);
  const [oldest] = imported.keys();
  if (imported.size >= maxImported && oldest !== undefined) imported.delete(oldest);
  imported.set(name, key);
  return key;
}

/** Signature over the label and the length-prefixed parts. */
export async function signLabelled(
  key: SigningKey,
  label: SignatureLabel,
  ...parts: readonly Uint8Array[]
): Promise<Bytes> {
  return key.sign(labelled(label, parts));
}

/** @throws MeshError bad_signature */
export async function verifyLabelled(
  publicKey: Uint8Array,
  signature: Uint8Array,
  label: SignatureLabel,
  ...parts: readonly Uint8Array[]
): Promise<void> {
  const bytes = labelled(label, parts);
  let fits: boolean;
  try {
    const key = await importPublicKey(publicKey);
    fits = await crypto.subtle.verify('Ed25519', key, new Uint8Array(signature), bytes);
  } catch (cause) {
    throw new MeshError('bad_signature', undefined, { cause });
  }
  if (!fits) throw new MeshError('bad_signature');
}

function labelled(label: SignatureLabel, parts: readonly Uint8Array[]): Bytes {
  return concat(utf8(label), lengthPrefixed(...parts));
}
