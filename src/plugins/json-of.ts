/** The type of the values that a JSON Schema lets through, as far as the usual keywords say. Else any JSON. */

import type { Json } from '@cocoon-mesh/protocol';

export type JsonOf<Schema> = Schema extends { readonly const: infer Value }
  ? Value
  : Schema extends { readonly enum: readonly (infer Value)[] }
    ? Value
    : Schema extends { readonly anyOf: readonly (infer Inner)[] }
      ? JsonOf<Inner>
      : Schema extends { readonly oneOf: readonly (infer Inner)[] }
        ? JsonOf<Inner>
        : Schema extends { readonly type: infer Type }
          ? OfType<Type, Schema>
          : Json;

type OfType<Type, Schema> = Type extends 'string'
  ? string
  : Type extends 'number' | 'integer'
    ? number
    : Type extends 'boolean'
      ? boolean
      : Type extends 'null'
        ? null
        : Type extends 'array'
          ? readonly (Schema extends { readonly items: infer Items } ? JsonOf<Items> : Json)[]
          : Type extends 'object'
            ? ObjectOf<Schema>
            : Json;

type ObjectOf<Schema> = Schema extends { readonly properties: infer Properties }
  ? {
      readonly [Key in keyof Properties as Key extends Required<Schema> ? Key : never]: JsonOf<
        Properties[Key]
      >;
    } & {
      readonly [Key in keyof Properties as Key extends Required<Schema> ? never : Key]?: JsonOf<
        Properties[Key]
      >;
    }
  : { readonly [key: string]: Json };

type Required<Schema> = Schema extends { readonly required: readonly (infer Key)[] } ? Key : never;
