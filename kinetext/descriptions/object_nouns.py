"""Names of objects in descriptions of human actions, and the words around them: what `masking` knows of English.

Written for this project, with the label lists of Kinetics, UCF-101, HMDB-51 and Something-Something and our own
descriptions of Kinetics-400 at hand. Nouns stand in the singular, unless they have none.
"""

from __future__ import annotations

__all__ = [
    "ADVERBS",
    "ARRANGEMENTS",
    "ARTICLES",
    "BODY_PARTS",
    "CAUSATIVES",
    "COMPOUNDS",
    "CONJUNCTIONS",
    "DETERMINERS",
    "FUNCTION_WORDS",
    "GROUND_COVERS",
    "INTENSIFIERS",
    "LIQUIDS",
    "LOOKS",
    "MODIFIERS",
    "MOTION_NOUNS",
    "NOT_OBJECTS",
    "OBJECT_NOUNS",
    "OTHER_DETERMINERS",
    "OTHER_FUNCTION_WORDS",
    "PARTS",
    "PEOPLE",
    "PLURAL_DETERMINERS",
    "PLURAL_ONLY",
    "PORTIONS",
    "POSSESSIVES",
    "PREPOSITIONS",
    "PRONOUNS",
    "SINGULAR_DETERMINERS",
    "SUBJECTS",
    "VERBS_TOO",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(phrase.split()) for phrase in text.split(","))


OBJECT_NOUNS = _words(
    # sport and play
    """
    arrow backboard badminton-racket bait ball balloon bar barbell barrier baseball basketball bat baton beam
    beanbag bell birdie blade bobsled bodyboard boomerang bow bowstring bridle bullet bungee carabiner catapult
    cleat club crampon crossbar crossbow cue dagger dart dice disc discus disk dodgeball doll domino dumbbell epee
    fin firearm flipper foil football frisbee glider glove goalpost goggle gun harness hilt holster hoop horseshoe
    hurdle javelin jigsaw kettlebell kickball kite kiteboard lasso longboard luge lure marble mat medicine-ball mitt
    mound net netball nunchaku nunchuck paddle paintball parachute peg pinata pistol piñata poi pole pom-pom pommel
    puck puppet puzzle quiver racket racquet racquetball reel rein rifle rim ring rod rope saber sabre saddle
    scabbard sheath shield shot-put shotgun shuttlecock skate skateboard ski sled sledge slingshot snorkel snowball
    snowboard softball spear springboard stick stirrup stump surfboard sword tackle tee teeterboard tennis-ball
    tightrope toboggan toy trampoline trapeze treadmill trigger volleyball wakeboard waterski weapon whip wicket
    yo-yo yoyo
    """
    # vehicles
    """
    aeroplane aircraft craft airplane automobile bicycle bike boat bonnet brake bumper bus cab canoe car carriage cart
    clutch crankset engine ferry forklift handlebar headlight helicopter jet-ski jetski kayak lawnmower locomotive
    lorry mast moped motor motorbike motorcycle mower oar pedal plough plow pram propeller raft rickshaw rocket
    rowboat rudder sail sailboat scooter segway ship sidecar skijet speedboat stroller submarine taxi tire tractor
    trailer train tram tricycle trolley truck tyre unicycle van vehicle wagon wheel wheelbarrow wheelchair
    windshield yacht
    """
    # tools, machines, devices
    """
    adhesive anvil apparatus ashtray awl axe bellows bin bolt book booklet brick broom brush bucket bulldozer cable
    calculator camera cane canvas card cardboard chain chainsaw chalk chisel chopper cigar cigarette clamp clipboard
    clock cloth computer controller cord crane crayon crowbar crutch cursor device digger drill dumpster duster
    dustpan easel envelope equipment eraser excavator extinguisher fan faucet filament flashlight furnace gadget
    gauge gavel gear generator glue grinder gutter hammer hammock hardware hatchet hoe hookah hose hourglass inhaler
    ink joystick keyboard kiln knob ladder lamp lantern laptop laser lathe lens lever lightbulb lighter log loom
    machine magazine magnet mallet marker match megaphone microphone microscope mop mophead motherboard mouse needle
    newspaper notebook nozzle padlock page paint paintbrush palette paper parcel pen pencil phone pickaxe pin pipe
    pitchfork pliers plow plunger pulley pump rag rake razor remote rivet robot ruler sandpaper saw scale scalpel
    scanner scraper screen screw screwdriver scythe sewing-machine sharpener shovel shredder sickle sieve siphon
    smartphone spade spanner sponge spool sprinkler squeegee stamp stapler stethoscope syringe tablet tape telephone
    telescope television thermometer thimble thread toggle tongs tool torch towel trap trowel turntable tv tweezers
    typewriter umbrella utensil vacuum valve walking-stick wand watergun welder windmill wire wool workpiece wrench
    yarn
    """
    # household, kitchen, containers, furniture
    """
    alarm armchair award backpack bag bandage banknote barrel basin basket bassinet bathrobe bathtub battery bead
    bed bench bill blackboard blanket blender blowpipe board bottle bowl box bracket briefcase bubble bulb bunk
    button cabinet candle candlestick canister canopy carpet carton cash casket chair chalkboard chandelier chanter
    chest-of-drawers chopstick coffin coin colander component container cooker cork corkscrew couch counter
    countertop cradle crate crib cup cupboard curtain cushion cutlery cutter debris decoration desk dish dishwasher
    doorbell doorknob drawer dresser filter fireplace flask fork freezer fridge furniture garbage garland gauze gift
    glass grater grill handbag handle handrail hanger iron item jar jewelry jug kettle key-ring knife ladle laundry
    lid lightswitch litter luggage mail map mattress medal microwave mirror money mug napkin nightstand opener
    ornament oven pacifier package packet pad pail pan panel peeler pillow plate platter plug pot purse rack
    refrigerator ribbon rubbish rug sack saucepan saucer seat sheet shelf sink skewer skillet socket sofa souvenir
    spatula spoon stool stove strainer strap straw suitcase switch table tablecloth tank teacup teapot teaspoon
    thermos throttle ticket tin tinsel toaster toilet token trash tray trophy trunk-lid tub tube urn vase vat visor
    wallet wardrobe waste whetstone whisk whiteboard wineglass wok wrapper
    """
    # clothes, cosmetics
    """
    applicator apron belt blouse boot bra bracelet brush buckle cap cape cardigan clipper clothing coat collar comb
    concealer conditioner cosmetic costume cream curler deodorant diaper dress dryer dye earring eyeliner floss foam
    foundation garment gel gown hairbrush hairdryer hairpin hairspray handkerchief hat hatband headband headphone
    headscarf helmet hood jacket jeans jersey kilt kimono lace leotard lipstick lotion make-up makeup mascara mask
    mitten moisturizer necklace necktie nightgown outfit pajamas parka perfume plaster pocket polish poncho powder
    robe sandal sari scarf shampoo shawl shirt shoe shoelace shorts skirt sleeve slipper sneaker soap sock stocking
    suit sunglasses sunscreen sweater sweatshirt swimsuit t-shirt tattoo tie tights tissue toothbrush toothpaste
    toothpick trimmer trousers turban tutu underwear uniform veil vest waistcoat wig wristband zipper
    """
    # music
    """
    accordion amplifier snare bagpipe banjo bassoon bongo bugle castanet cello chime clarinet concertina conga cornet
    cymbal daf dhol didgeridoo djembe drum drumhead drumskin drumstick fiddle fingerboard flute fret fretboard
    glockenspiel gong guitar harmonica harp harpsichord horn lute lyre mandolin maraca marimba metronome mouthpiece
    oboe ocarina piano piano-key piccolo pick-guard plectrum radio recorder reed saxophone sitar string synthesizer
    tabla tambourine timpani trombone trumpet tuba ukulele viola violin xylophone zither
    """
    # buildings, landscape, plants, materials
    """
    aluminum apartment balcony bamboo barricade bleacher bone boom boulder branch brass building bush cabin cactus
    cage campfire castle ceiling cement charcoal chimney church chute clay cliff coal column concrete cone copper
    cotton curb deck dirt door doorframe doorway dust elevator escalator fabric fence fire firewood flag flagpole
    flake flame flower foliage fountain garage gate gold grape-vine grass grave gravel greenhouse hay hedge house
    hut lace lamppost leaf leather ledge lighthouse linen lumber marble metal monument mortar mud nylon pane pebble
    petal pillar pit plank plant plastic platform plywood podium pool post pottery rail railing ramp reef rock roof
    rooftop rubber sand sandcastle sapling scaffold scaffolding seesaw shed shrub signpost silk silver snow snowman
    soil sphere stage stair staircase stake statue steel stem stone stump tabletop tent tile timber tower tree
    tunnel turf twig velvet vine vinyl wall wax webbing wicker windmill window windowsill wood woodpile
    """
    # food and drink
    """
    alcohol almond apple asparagus avocado bacon bagel banana barbecue bean beef beer berry beverage biscuit bread
    breadcrumb breakfast broccoli broth bun burger burrito butter cabbage cake candy caramel carrot cauliflower
    celery cereal champagne cheese cherry chili chip chocolate cocktail coconut coffee condiment cookie corn cracker
    cream crumb cucumber cupcake curry dessert dip donut dough doughnut dressing drink dumpling egg eggplant fig
    flour food frosting fruit garlic ginger grape gravy ham hamburger herb holder honey hot-dog hotdog ice-cream
    icing ingredient jelly juice ketchup kiwi lasagna leek lemon lemonade lentil lettuce lime lobster lollipop mango
    marshmallow mayonnaise meal meat melon milk mint mixture muffin mushroom mustard noodle nut oat oatmeal oil
    olive omelette onion orange oyster pancake papaya pasta paste pastry patty pea peach peanut pear pepper pickle
    pie pineapple pizza plum pomegranate popcorn popsicle pork porridge potato pretzel pudding pumpkin radish raisin
    ramen raspberry rice salad salami salmon salt sandwich sauce sausage scallop seafood seasoning seaweed seed
    shaker smoothie snack soda soup spaghetti spice spinach squid steak stew strawberry sugar sushi syrup taco tea
    toast tobacco tofu tomato topping tortilla tuna turkey vegetable vinegar vodka waffle walnut watermelon wheat
    whiskey wine yogurt yolk
    """
    # animals
    """
    alligator animal ant bear bee bird buffalo bull butterfly camel cat cattle chicken chimpanzee clam cow crab
    creature crocodile cutlet deer dinosaur dog dolphin donkey dove duck eagle elephant feather fish foal fox frog
    giraffe goat goldfish goose gorilla hamster hawk hen hive horse insect jellyfish kangaroo kitten koala lamb
    leash leopard lion lizard lobster mare monkey moose mosquito mule muzzle octopus ostrich owl ox panda parrot
    peacock penguin pet pig pigeon pony poodle puppy python rabbit raccoon rat reindeer rooster seagull shark sheep
    shrimp snail snake spider squirrel stallion swan tiger trout turtle udder whale wolf worm zebra
    """
)

PLURAL_ONLY = _words(  # objects in the plural alone: "a weight" is mostly that of the body, "a key" mostly an adjective
    """
    bellows binoculars cattle chaps clippers clothes cutlery dice earphones glasses goggles groceries handcuffs
    headphones jeans keys leggings lights nunchucks overalls pajamas pants pliers reins scissors shears shorts
    sunglasses tights tongs toys trousers tweezers underpants weights
    """
)

COMPOUNDS = _phrases(  # names whose last word alone would not be one, or whose first word could be a verb
    """
    air pump, baking sheet, baking tray, balance beam, balancing pole, ball gown, beer can, bicycle pump, bike pump,
    blow dryer, boogie board, bow tie, bowling alley, bowling ball, bowling pin, boxing bag, boxing glove, bull whip,
    can opener, car jack, card deck, carving tool, chewing gum, chopping board, climbing rope, climbing wall,
    contact lens, cooking pan, cooking pot, cooking utensil, curling iron, cutting board, cutting tool, deck of cards,
    diving board, drawing board, drawing tool, drinking glass, drinking straw, drum kit, drum set, elastic band,
    face mask, face paint, finger paint, fishing line, fishing net, fishing pole, fishing rod, foot pedal,
    football helmet, frying pan, gardening tool, gas can, hair band, hair clip, hair dryer, hair tie,
    hand towel, hang glider, heavy bag, ice axe, ice block, ice cream, ice cube, ice pick, ice skate, ironing board,
    jet ski, jump rope, knee pad, knitting needle, landing mat, leaf blower, measuring cup, milk carton, mixing bowl,
    music stand, nail clippers, nail file, nail polish, paint can, playing card, pogo stick, pom pom, pommel horse,
    punching bag, resistance band, riding crop, rolling pin, rowing machine, rubber band, running shoe, sand pit,
    serving dish, serving spoon, sewing machine, shaving brush, shaving cream, shaving foam, shopping bag,
    shopping cart, shot put, shoulder bag, skipping rope, sleeping bag, soap bar, soda can, speed bag, spray can,
    starting block, steering wheel, still ring, styling tool, swim trunks, swimming pool, swimming trunks, swing seat,
    tin can, toe clip, training bag, trash can, vacuum cleaner, vault table, vaulting horse, walking stick,
    washing machine, water bottle, watering can, weight plate, weight stack, wind instrument, wrapping paper,
    wrestling mat, writing board, writing tool, yoga mat
    """
)

VERBS_TOO = _words(  # object nouns that are verbs or names of motions as well: the words around decide
    """
    bait balloon bat beam bear bike board bolt bow bowl box brake branch brush buckle building butter cage
    cap cart chain clamp club coat comb counter cradle crane crate cue cup dart dice dip dish dress drill drink
    drum duck dye fan fence fiddle fire fish fork frosting glue hammer handle harness holder hurdle
    icing iron lasso leaf mail mask match milk mirror mop net paddle paint pan pedal peg pin pipe plant plate
    plow plug polish pot pump quiver raft rake ramp reel rein ring rock roof rope sack saddle sail salt sand
    sandpaper saw scale screen screw seasoning seat shield shovel sink skate skateboard ski sled snake snowboard
    spear sponge spool squeegee squirrel stage stamp stick surfboard switch tackle tape thread tie topping trap
    vacuum wax wheel whip whisk
    """
)

GROUND_COVERS = _words("clay dirt grass gravel mud sand snow soil turf")  # ground where one moves on them

LIQUIDS = _words("water liquid fluid air")  # stay, but not as what a container is full of

PORTIONS = _words(  # of something: "a slice of bread" is one object
    """
    armful bit block bunch chunk clump forkful handful heap length loaf lump mouthful pair piece pile roll scoop
    slab slice spoonful stack strip tuft wad
    """
)

PARTS = _words(
    "case edge end face frame head kit neck pick rim set shaft side skin surface tip top"
)  # of the object named before

MODIFIERS = _words(  # belong to the name of an object that follows at once
    """
    acoustic badminton baseball basketball bass beach beard billiard bowling cello christmas circus cricket croquet
    drain electric exercise eye eyebrow eyelash fencing field football garden golf gym hair hockey ice jazz kitchen
    lacrosse medicine motor musical nail percussion ping-pong pingpong polo pool power quad roller rugby safety
    shaving snare snooker soccer softball sport sports squash stringed tennis toy training volleyball water weight
    wind
    """
)

LOOKS = _words(  # adjectives of how an object looks and what it is made of: they go with its name
    """
    aluminum bamboo beaten bent big black bladed blue brass bright broad broken brown bulky burning buzzing ceramic
    circular clay clean coarse cold colored colorful coloured colourful compact concrete conical copper cotton crisp
    curved cushioned cylindrical dark dense dirty dry electric elevated enormous fabric fine flat flexible floppy
    foam foaming folded framed fresh frosted frozen furry fuzzy giant glass glossy glowing gold golden gray green
    grey hanging hard heavy heavyweight high hollow hot huge humming inflatable inflated iron juicy large leafy
    leather light lightweight little loaded long loose low massive melted metal metallic miniature molten narrow new
    nylon oblong old open open-topped orange oval padded paper patterned pink plain plastic plump pneumatic pointed
    pointy powdery printed purple purring raw rectangular red ripe roaring rough round rounded rubber rubbery rusty
    shallow sharp sharpened shiny short silk silver sizzling skinny slender slim slippery small smooth snug soft
    solid sour spherical spiky square steaming steel sticky stiff stone stretchy striped sturdy sweet tall tapered
    thick thin tiny tough transparent triangular tubular upholstered upright velvet violet waxed weighted wet white
    wide wooden woolen woven yellow
    """
)

BODY_PARTS = _words(
    """
    abdomen ankle arm armpit back beard belly body brow buttock calf calves cheek chest chin ear elbow eye eyebrow
    eyelash eyelid face feet finger fingertip fist foot forearm forefinger forehead hair hand head heel hip jaw knee
    knuckle lap leg limb lip mouth muscle nail neck nose palm pelvis rib scalp shin shoulder skin sole spine
    stomach strand teeth thigh throat thumb toe tongue tooth torso trunk waist wrist
    """
)

PEOPLE = _words(
    """
    actor adult arbiter artist athlete baby barber batsman batter boxer boy child children climber crew dancer diver
    driver drummer fencer girl goalkeeper gymnast hairdresser jockey juggler jumper keeper kicker man marcher men
    opponent owner partner passenger people performer person pitcher player puller referee rider rower runner sailor
    shooter singer skater skier someone swimmer teammate thrower walker woman women wrestler
    """
)

MOTION_NOUNS = _words(  # with the name of an object before them they stay and the name goes: "the racket arm"
    """
    action angle beat blow catch drop flick flight flip glide grip handling hit jump kick lift loop motion movement
    path play press pull push release ride roll rotation shot slide spin strike stroke swing tap throw thrust toss
    trajectory travel turn twirl twist use vibration work
    """
)

NOT_OBJECTS = _phrases(  # where a name of an object names none
    """
    ball of each foot, ball of her foot, ball of his foot, ball of one foot, ball of the foot, ball of the thumb,
    balls of both feet, balls of the feet, balls of their feet, board game, book a, bow of the body, bow of the head,
    bow of the torso, bow of the trunk, crown of the head, deep bow, drink of water, ear drum, eye socket,
    eye sockets, fan out, fan shape, fans out, final bow, forward bow, hair line, hard rock, heavy metal, heel plate,
    hip socket, in a ring around, in the pit of the stomach, in the ring of people, knee cap, low bow, on all fours,
    on board, on fire, pit of the stomach, polite bow, rib cage, rock music, set fire, short bow forward,
    shoulder blade, shoulder blades, shoulder socket, slight bow, slow bow, small bow
    """
)


# Words around names

ARTICLES = _words("a an")
SINGULAR_DETERMINERS = _words("a an another each either every neither one that this")
PLURAL_DETERMINERS = _words(
    """
    all both eight few five four many multiple nine seven several six ten these those three two various
    """
)
POSSESSIVES = _words("her his its my one's our their your")
OTHER_DETERMINERS = _words("any more no some the")
PRONOUNS = _words("herself him himself it itself oneself them themselves")  # objects of verbs
SUBJECTS = _words(  # and what else stands before a verb
    """
    can he it may must not she should that then they to which who will
    """
)
ADVERBS = _words(
    """
    again always away back backward backwards down downward ever forward forwards here inward never now off often
    once out outward overhead sideways soon straight then there together twice up upward usually
    """
)
PREPOSITIONS = _words(
    """
    about above across after against along among around as at before behind below beneath beside between beyond by
    during for from in inside into like near of off on onto out outside over past per through throughout toward
    towards under underneath until up upon using via with within without
    """
)
CONJUNCTIONS = _words("and but nor or")
CAUSATIVES = _words(  # "making the ball spin"
    """
    help helps let lets letting make makes making see seeing sees watch watches watching
    """
)
INTENSIFIERS = _words("extremely fairly quite rather slightly very")
OTHER_FUNCTION_WORDS = _words("are be because been being has have if is so than was were when where while")
ARRANGEMENTS = _words(  # adjectives that say how an object moves or stands: they stay
    """
    adjacent airborne empty final first full hidden horizontal incoming last left lower lowered main near nearby
    next oncoming opposite other outgoing outstretched overhead own parallel raised right same second single
    stationary suspended third thrown tossed upper vertical whole
    """
)
DETERMINERS = SINGULAR_DETERMINERS | PLURAL_DETERMINERS | POSSESSIVES | OTHER_DETERMINERS
FUNCTION_WORDS = DETERMINERS | PRONOUNS | SUBJECTS | ADVERBS | PREPOSITIONS | CONJUNCTIONS | OTHER_FUNCTION_WORDS
