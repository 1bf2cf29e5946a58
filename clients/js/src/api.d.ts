// Generated from the service's description by types.js.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        Experiment: {
            id?: string | null;
            variant?: string | null;
        };
        /**
         * @description A native exposure. service_v1, eval_v1 and pipelines_v1 are recognised too. Fields that are not
         *     listed are kept in `meta.extra`. Lengths are in bytes of UTF-8.
         */
        Exposure: {
            algo_version?: string | null;
            /** @description Raw; only its keyed hash is stored. Or send `anonymous_id_hash`. */
            anonymous_id?: string | null;
            /** @description As `user_id_hash`, of `anonymous_id`. */
            anonymous_id_hash?: string | null;
            config_version?: string | null;
            /** @description What was known of the request. */
            context?: {
                [key: string]: unknown;
            } | null;
            /** @description A UUID, or any other string; makes a repeated event a duplicate, together with `occurred_at`. */
            event_id?: string | null;
            experiment?: components["schemas"]["Experiment"] | null;
            /** @description What was shown, in order. */
            items: components["schemas"]["ShownItem"][];
            /** @description Other members to keep. */
            meta?: {
                [key: string]: unknown;
            } | null;
            /**
             * Format: date-time
             * @description RFC 3339 with an offset; the time of receipt if absent. Part of the event's identity: repeat
             *     it unchanged when you retry.
             */
            occurred_at?: string | null;
            /** @description The recommendation request. */
            request?: {
                [key: string]: unknown;
            } | null;
            /** @description The id of the recommendation request; joins exposures with interactions. */
            request_id: string;
            rules_version?: string | null;
            segment?: string | null;
            /** @description Raw; only its keyed hash is stored. Or send `session_id_hash`. */
            session_id?: string | null;
            /** @description As `user_id_hash`, of `session_id`. */
            session_id_hash?: string | null;
            /** @description Where it was shown. Not `.` or `..`. */
            surface: string;
            /** @description Another tenant than the key's own: only with the role `service`. */
            tenant_id?: string | null;
            /** @description Raw; only its keyed hash is stored. Or send `user_id_hash`. */
            user_id?: string | null;
            /** @description HMAC-SHA256 of the user's id under the suite's salt, in hex. Beside `user_id` it has to be that one's hash. */
            user_id_hash?: string | null;
        };
        /**
         * @description A native interaction. outcome_v1 is recognised too. Fields that are not listed are kept in
         *     `meta.extra`. Lengths are in bytes of UTF-8.
         */
        Interaction: {
            /** @description Raw; only its keyed hash is stored. Or send `anonymous_id_hash`. */
            anonymous_id?: string | null;
            /** @description As `user_id_hash`, of `anonymous_id`. */
            anonymous_id_hash?: string | null;
            /** @description A UUID, or any other string; makes a repeated event a duplicate, together with `occurred_at`. */
            event_id?: string | null;
            /**
             * @description `conversion` means `purchase`.
             * @enum {string}
             */
            event_type: "impression" | "view" | "click" | "add_to_cart" | "purchase" | "conversion";
            /** @description The item; `item_id` or `items` is required, and not both. */
            item_id?: string | null;
            /**
             * @description Several items of one event, each of which becomes a row. One that is not valid rejects the
             *     event.
             */
            items?: components["schemas"]["InteractionItem"][] | null;
            /** @description Other members to keep. */
            meta?: {
                [key: string]: unknown;
            } | null;
            /**
             * Format: date-time
             * @description RFC 3339 with an offset; the time of receipt if absent. Part of the event's identity: repeat
             *     it unchanged when you retry.
             */
            occurred_at?: string | null;
            order?: components["schemas"]["Order"] | null;
            /**
             * Format: int32
             * @description With `item_id`: its place in the list.
             */
            position?: number | null;
            /** @description The id of the recommendation request that showed the item. */
            request_id?: string | null;
            segment?: string | null;
            /** @description Raw; only its keyed hash is stored. Or send `session_id_hash`. */
            session_id?: string | null;
            /** @description As `user_id_hash`, of `session_id`. */
            session_id_hash?: string | null;
            /** @description Where it happened. Not `.` or `..`. */
            surface?: string | null;
            /** @description Another tenant than the key's own: only with the role `service`. */
            tenant_id?: string | null;
            /** @description Raw; only its keyed hash is stored. Or send `user_id_hash`. */
            user_id?: string | null;
            /** @description HMAC-SHA256 of the user's id under the suite's salt, in hex. Beside `user_id` it has to be that one's hash. */
            user_id_hash?: string | null;
            /**
             * Format: double
             * @description With `item_id`. Kept to six decimals, never through a float.
             */
            value?: number | null;
        };
        /** @description One of several items of an interaction; further members are kept in `meta.extra.items`. */
        InteractionItem: {
            item_id: string;
            /**
             * Format: int32
             * @description Its place in the list.
             */
            position?: number | null;
            /**
             * Format: double
             * @description Of one. Kept in `meta.price`.
             */
            price?: number | null;
            /**
             * Format: double
             * @description How many; 1 if absent. Kept in `meta.quantity`.
             */
            quantity?: number | null;
            /**
             * Format: double
             * @description The row's value; if absent, it is `price` times `quantity`, exactly, rounded to six decimals.
             */
            value?: number | null;
        };
        /**
         * @description The order that the items belong to. Kept whole in the `meta.order` of each row, and in no
         *     column, so that its value is not counted.
         */
        Order: {
            /** @example EUR */
            currency?: string | null;
            id: string;
            /** Format: double */
            value?: number | null;
        };
        /** @description An event that was not accepted. */
        RejectedEvent: {
            /**
             * @description Why, for programs.
             * @example missing_field
             * @enum {string}
             */
            code: "invalid_json" | "invalid_utf8" | "not_an_object" | "event_too_large" | "too_many_fields" | "too_deep" | "invalid_unicode" | "number_out_of_range" | "missing_field" | "invalid_type" | "invalid_value" | "too_long" | "duplicate_field" | "conflicting_fields" | "invalid_timestamp" | "occurred_at_out_of_range" | "too_many_items" | "unknown_field" | "missing_tenant" | "unknown_tenant" | "tenant_mismatch" | "tenant_not_active" | "unknown_surface" | "unsupported_format" | "field_not_allowed";
            /** @description Its id, if it has a readable one. */
            event_id?: string | null;
            /**
             * @description The field at fault, if it is one field.
             * @example item_id
             */
            field?: string | null;
            /**
             * Format: int32
             * @description Its place in the body, from 0.
             * @example 3
             */
            index: number;
            /**
             * @description Why, for people.
             * @example is required
             */
            message: string;
        };
        /** @description An item that was shown; further members are kept. */
        ShownItem: {
            item_id: string;
            /**
             * Format: int32
             * @description From 1; its place in the list if absent.
             */
            rank?: number | null;
            /** Format: double */
            score?: number | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
